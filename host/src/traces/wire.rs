//! Spans as OTLP has them on the wire (`opentelemetry.proto.collector.trace.v1`), written at once into one buffer. The generated
//! structs would need a dozen small pieces of memory for each span, and that is most of what a span costs.

use bytes::{BufMut as _, Bytes};
use telemetry::trace::{Attribute, Kind, Record, Scope, Value};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// `TraceService/Export`.
pub(super) const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// An `ExportTraceServiceRequest` with all of them. `resource` is an encoded `Resource`.
pub(super) fn request(resource: &[u8], records: &[Record]) -> Bytes {
    let mut scopes: Vec<Scope> = Vec::new();
    for record in records {
        if !scopes.contains(&record.scope) {
            scopes.push(record.scope);
        }
    }
    let mut request = Message(Vec::with_capacity(records.len() * SPAN_LEN));
    request.message(1, |resource_spans| {
        resource_spans.bytes(1, resource);
        for scope in scopes {
            resource_spans.message(2, |scope_spans| {
                scope_spans.message(1, |m| m.bytes(1, scope.name().as_bytes()));
                for record in records.iter().filter(|r| r.scope == scope) {
                    scope_spans.message(2, |m| span(m, record));
                }
            });
        }
    });
    request.0.into()
}

fn span(m: &mut Message, record: &Record) {
    m.bytes(1, &record.trace_id);
    m.bytes(2, &record.span_id);
    if let Some(parent) = &record.parent {
        m.bytes(4, parent);
    }
    m.bytes(5, record.name.as_bytes());
    m.number(
        6,
        match record.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
            Kind::Consumer => 5,
        },
    );
    m.fixed64(7, record.start);
    m.fixed64(8, record.end);
    record.attributes.iter().for_each(|a| attribute(m, 9, a));
    for event in &record.events {
        m.message(11, |m| {
            m.fixed64(1, event.at);
            m.bytes(2, event.name.as_bytes());
            event.attributes.iter().for_each(|a| attribute(m, 3, a));
        });
    }
    if record.dropped_events > 0 {
        m.number(12, record.dropped_events.into());
    }
    if let Some(why) = &record.error {
        m.message(15, |m| {
            m.bytes(2, why.as_bytes());
            m.number(3, STATUS_ERROR);
        });
    }
    m.fixed32(16, SAMPLED);
}

fn attribute(m: &mut Message, field: u32, (key, value): &Attribute) {
    m.message(field, |m| {
        m.bytes(1, key.as_bytes());
        m.message(2, |m| match value {
            Value::Text(text) => m.bytes(1, text.as_bytes()),
            Value::Zxid(zxid) => m.bytes(1, zxid.to_string().as_bytes()),
            // As protobuf has an int64.
            Value::Number(number) => m.number(3, number.cast_unsigned()),
        });
    });
}

/// A protobuf message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn number(&mut self, field: u32, n: u64) {
        self.tag(field, 0);
        self.varint(n);
    }

    fn fixed64(&mut self, field: u32, n: u64) {
        self.tag(field, 1);
        self.0.put_u64_le(n);
    }

    fn fixed32(&mut self, field: u32, n: u32) {
        self.tag(field, 5);
        self.0.put_u32_le(n);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message within this one. Its length stands before it and is known only behind it.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        self.tag(field, 2);
        let start = self.0.len();
        write(self);
        let end = self.0.len();
        self.varint((end - start) as u64);
        let written = self.0.len() - end;
        self.0[start..].rotate_right(written);
    }
}

/// Sends what is encoded already, and does not look at what comes back: a collector that takes only a part of the spans has
/// its reasons.
#[derive(Default)]
pub(super) struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Encoded;
    type Decoder = Encoded;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Encoded {
        Encoded
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes::Buf::advance(message, bytes::Buf::remaining(message));
        Ok(Some(()))
    }
}

/// About as many bytes as a span has.
const SPAN_LEN: usize = 192;
const STATUS_ERROR: u64 = 2;
/// W3C trace flags.
const SAMPLED: u32 = 1;

#[cfg(test)]
mod tests {
    use api::Zxid;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::KeyValue,
        resource::v1::Resource,
        trace::v1::{span::SpanKind, status::StatusCode},
    };
    use prost::Message as _;
    use telemetry::trace::Event;

    use super::*;

    fn record(scope: Scope) -> Record {
        Record {
            scope,
            name: "store.set",
            kind: Kind::Server,
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: Some([3; 8]),
            start: 10,
            end: u64::MAX,
            attributes: vec![("quorate.zxid", Zxid(0x1_0000_0002).into()), ("n", (-7).into())],
            dropped_events: 300,
            events: vec![Event { at: 15, name: "vote", attributes: vec![("to", "2".into())] }],
            error: Some("no".into()),
        }
    }

    fn read(records: &[Record]) -> ExportTraceServiceRequest {
        let resource = Resource { dropped_attributes_count: 9, ..Resource::default() };
        let request = request(&resource.encode_to_vec(), records);
        let read = ExportTraceServiceRequest::decode(request).unwrap();
        let [of] = &read.resource_spans[..] else { panic!("{read:?}") };
        assert_eq!(of.resource, Some(resource));
        read
    }

    #[test]
    fn a_span_says_all_that_its_record_does() {
        let got =
            read(&[record(Scope::Store)]).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
        assert_eq!((&got.trace_id[..], &got.span_id[..]), (&[1; 16][..], &[2; 8][..]));
        assert_eq!(got.parent_span_id, [3; 8]);
        assert_eq!((got.name.as_str(), got.kind(), got.flags), ("store.set", SpanKind::Server, 1));
        assert_eq!((got.start_time_unix_nano, got.end_time_unix_nano), (10, u64::MAX));
        let text =
            |v: &KeyValue| format!("{} {:?}", v.key, v.value.as_ref().unwrap().value.as_ref().unwrap());
        let said: Vec<String> = got.attributes.iter().map(text).collect();
        assert_eq!(said, [r#"quorate.zxid StringValue("0x100000002")"#, "n IntValue(-7)"]);
        assert_eq!(got.dropped_events_count, 300);
        let [event] = &got.events[..] else { panic!("{:?}", got.events) };
        assert_eq!((event.time_unix_nano, event.name.as_str()), (15, "vote"));
        assert_eq!(text(&event.attributes[0]), r#"to StringValue("2")"#);
        let status = got.status.unwrap();
        assert_eq!((status.code(), status.message), (StatusCode::Error, "no".into()));

        let root = Record { parent: None, error: None, kind: Kind::Client, ..record(Scope::Client) };
        let got = read(&[root]).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
        assert!(got.parent_span_id.is_empty() && got.status.is_none());
        assert_eq!(got.kind(), SpanKind::Client);
    }

    #[test]
    fn a_message_has_the_spans_by_scope() {
        let records: Vec<Record> =
            (0..900).map(|i| record([Scope::Store, Scope::Quorum][i % 3 / 2])).collect();
        let request = read(&records);
        let said: Vec<_> = request.resource_spans[0]
            .scope_spans
            .iter()
            .map(|s| (s.scope.as_ref().unwrap().name.as_str(), s.spans.len()))
            .collect();
        assert_eq!(said, [("quorate.store", 600), ("quorate.quorum", 300)]);
    }

    #[test]
    fn the_codec_is_that_of_the_service() {
        use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server;
        assert_eq!(PATH, format!("/{}/Export", trace_service_server::SERVICE_NAME));
    }
}
