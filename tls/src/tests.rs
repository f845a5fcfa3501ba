use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams,
    SerialNumber,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::*;
use api::PeerId;

const DAY: Duration = Duration::from_secs(86_400);
const ENSEMBLE: &str = "orders";

/// The files of one server in a directory of its own.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new(authority: &Authority, issued: &Issued) -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        dir.put(authority, issued);
        dir
    }

    fn put(&self, authority: &Authority, issued: &Issued) {
        self.write("ca.pem", authority.certificate(), 0o644);
        self.write("own.pem", &issued.certificate, 0o644);
        self.write("own.key", &issued.key, 0o600);
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let file = self.0.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn files(&self) -> Files {
        let file = |name: &str| Path::new(self.0.path()).join(name);
        Files {
            certificate: file("own.pem"),
            key: file("own.key"),
            authorities: Some(file("ca.pem")),
            revoked: None,
        }
    }
}

fn authority() -> Authority {
    Authority::new("test", DAY).unwrap()
}

fn member(authority: &Authority, id: u32) -> Dir {
    Dir::new(authority, &authority.issue_member(ENSEMBLE, PeerId(id), &[], DAY).unwrap())
}

fn keeper(dir: &Dir, id: u32) -> Arc<Keeper> {
    Keeper::load(dir.files(), members(id)).unwrap()
}

fn members(id: u32) -> Certificates {
    Certificates::Members { ensemble: ENSEMBLE.into(), me: PeerId(id) }
}

/// What the server makes of a connection, and what it costs the client that takes the server for `to`.
async fn meet(
    server: &Acceptor,
    client: &Arc<Keeper>,
    to: u32,
) -> (Result<(Accepted<TcpStream>, Caller), HandshakeError>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = client.current().client.clone().unwrap();
    let name = ServerName::try_from(member_name(ENSEMBLE, PeerId(to))).unwrap();
    let dialled = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| e.to_string())?;
        // In TLS 1.3 a client hears of a refused certificate with the first byte, or none, that it reads.
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await.map(drop).map_err(|e| e.to_string())
    };
    let accepted = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, caller) = server.accept(stream).await?;
        let _ = stream.write_all(b"y").await;
        let _ = stream.flush().await;
        Ok((stream, caller))
    };
    tokio::join!(accepted, dialled)
}

/// A server that trusts this authority and shows a certificate with which it would not start.
fn shows(authority: &Authority, certificate: &Dir) -> Arc<Keeper> {
    let good = member(authority, 2);
    let client = keeper(&good, 2);
    let own = certificate.files().load(&rustls::crypto::ring::default_provider()).unwrap().key;
    let mut config = (*client.current().client.clone().unwrap()).clone();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
    client.with_client(config)
}

fn require(keeper: &Arc<Keeper>) -> Acceptor {
    Acceptor::new(keeper, Mode::Require, true).unwrap()
}

#[tokio::test]
async fn members_meet_by_the_names_in_their_certificates() {
    let authority = authority();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    let (one, two) = (keeper(&one, 1), keeper(&two, 2));
    let (accepted, dialled) = meet(&require(&one), &two, 1).await;
    assert_eq!(dialled, Ok(()));
    let (_, caller) = accepted.unwrap();
    assert_eq!(caller.check_member(PeerId(2)), Ok(()));
    let refused = caller.check_member(PeerId(3)).unwrap_err();
    assert!(refused.contains("member-3.orders.quorate"), "{refused}");
    // The client took it for member 1; it does not take it for member 3.
    let (_, dialled) = meet(&require(&one), &two, 3).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn s05_strangers_open_no_port_of_members() {
    let (ours, theirs) = (authority(), authority());
    let server = member(&ours, 1);
    let server = keeper(&server, 1);
    // The certificate of a member that another authority has issued.
    let (accepted, dialled) = meet(&require(&server), &shows(&ours, &member(&theirs, 2)), 1).await;
    assert!(matches!(accepted, Err(HandshakeError::Failed(_))), "{accepted:?}");
    assert!(dialled.is_err());
    // One of our authority that names a member of another ensemble, or none.
    let other = ours.issue_member("billing", PeerId(2), &[], DAY).unwrap();
    for issued in [other, ours.issue_client("member-2.orders.quorate", DAY).unwrap()] {
        let dir = Dir::new(&ours, &issued);
        let refused = Keeper::load(dir.files(), members(2)).unwrap_err();
        assert!(matches!(&refused, TlsError::Name { .. }), "{refused}");
        // Such a server does not start; one that does all the same is refused.
        let (accepted, dialled) = meet(&require(&server), &shows(&ours, &dir), 1).await;
        assert!(matches!(accepted, Err(HandshakeError::NoMember(_))), "{accepted:?}");
        assert!(dialled.is_err());
    }
}

#[tokio::test]
async fn plaintext_is_taken_only_where_the_mode_allows_it() {
    let authority = authority();
    let dir = member(&authority, 1);
    let keeper = keeper(&dir, 1);
    assert!(Acceptor::new(&keeper, Mode::Off, true).is_none());
    for (mode, plain) in [(Mode::Accept, true), (Mode::Prefer, true), (Mode::Require, false)] {
        let acceptor = Acceptor::new(&keeper, mode, true).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let accepted = acceptor.accept(listener.accept().await.unwrap().0).await;
        assert_eq!(matches!(accepted, Ok((Accepted::Left(_), _))), plain, "{mode:?}: {accepted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_given_up() {
    let authority = authority();
    let dir = member(&authority, 1);
    let keeper = keeper(&dir, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = require(&keeper).accept(listener.accept().await.unwrap().0).await;
    assert!(matches!(accepted, Err(HandshakeError::Slow)), "{accepted:?}");
}

#[tokio::test]
async fn s02_renewed_certificates_and_authorities_are_used_without_a_restart() {
    let (old, new) = (authority(), authority());
    let (one, two) = (member(&old, 1), member(&old, 2));
    let (server, client) = (keeper(&one, 1), keeper(&two, 2));
    let acceptor = require(&server);
    let (accepted, _) = meet(&acceptor, &client, 1).await;
    let mut trust = acceptor.trust(&accepted.unwrap().1);
    assert!(trust.holds());
    // Both trust the new authority beside the old one, then both have its certificates, then the old one goes.
    let both = format!("{}{}", old.certificate(), new.certificate());
    for dir in [&one, &two] {
        dir.write("ca.pem", &both, 0o644);
    }
    assert!(server.reload().unwrap() && client.reload().unwrap());
    for (dir, id) in [(&one, 1), (&two, 2)] {
        dir.put(&new, &new.issue_member(ENSEMBLE, PeerId(id), &[], DAY).unwrap());
        dir.write("ca.pem", &both, 0o644);
    }
    assert!(server.reload().unwrap());
    let (_, dialled) = meet(&acceptor, &client, 1).await;
    assert_eq!(dialled, Ok(()), "an old certificate against a new one");
    assert!(client.reload().unwrap());
    assert!(trust.holds());
    one.write("ca.pem", new.certificate(), 0o644);
    assert!(server.reload().unwrap());
    let (_, dialled) = meet(&acceptor, &client, 1).await;
    assert_eq!(dialled, Ok(()));
    assert!(!trust.holds(), "its certificate is of an authority that is trusted no more");
    assert!(!server.reload().unwrap(), "nothing has changed");
}

#[tokio::test]
async fn s03_a_broken_certificate_leaves_the_one_before_in_use() {
    let authority = authority();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    let (server, client) = (keeper(&one, 1), keeper(&two, 2));
    one.write("own.pem", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n", 0o644);
    assert!(matches!(server.reload(), Err(TlsError::Malformed { .. } | TlsError::Pair { .. })));
    // A certificate of another key.
    one.write("own.pem", &authority.issue_member(ENSEMBLE, PeerId(1), &[], DAY).unwrap().certificate, 0o644);
    assert!(matches!(server.reload(), Err(TlsError::Pair { .. })));
    // Certificates that others would refuse: of an unknown authority, and one that is not for clients.
    let name = [member_name(ENSEMBLE, PeerId(1))];
    let life = DAY;
    for useless in [
        self::authority().issue_member(ENSEMBLE, PeerId(1), &[], life).unwrap(),
        authority.issue_server("x", &name, life).unwrap(),
    ] {
        one.put(&authority, &useless);
        assert!(matches!(server.reload(), Err(TlsError::Useless { .. })));
    }
    let (_, dialled) = meet(&require(&server), &client, 1).await;
    assert_eq!(dialled, Ok(()));
}

#[tokio::test]
async fn s04_a_revoked_certificate_is_refused_and_its_connection_trusted_no_more() {
    let authority = authority();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    let client = keeper(&two, 2);
    one.write("revoked.pem", &revocations(&authority, None), 0o644);
    let files = Files { revoked: Some(one.0.path().join("revoked.pem")), ..one.files() };
    let server = Keeper::load(files, members(1)).unwrap();
    let acceptor = require(&server);
    let (accepted, dialled) = meet(&acceptor, &client, 1).await;
    assert_eq!(dialled, Ok(()));
    let mut trust = acceptor.trust(&accepted.unwrap().1);
    let certificate = fs::read_to_string(two.files().certificate).unwrap();
    one.write("revoked.pem", &revocations(&authority, Some(&certificate)), 0o644);
    assert!(server.reload().unwrap());
    let (accepted, _) = meet(&acceptor, &client, 1).await;
    assert!(matches!(accepted, Err(HandshakeError::Failed(_))), "{accepted:?}");
    assert!(!trust.holds());
}

#[tokio::test]
async fn s04_a_member_that_was_dialled_is_trusted_no_more_once_it_is_revoked() {
    let authority = authority();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    two.write("revoked.pem", &revocations(&authority, None), 0o644);
    let files = Files { revoked: Some(two.0.path().join("revoked.pem")), ..two.files() };
    let client = Keeper::load(files, members(2)).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let chain = one.files().load(&provider).unwrap().key.cert.clone().into();
    let name = ServerName::try_from(member_name(ENSEMBLE, PeerId(1))).unwrap();
    let generation = client.generation();
    let mut trust = Trust::new(&client, Some(chain), trust::Side::Server(name), generation);
    assert!(trust.holds());
    let certificate = fs::read_to_string(one.files().certificate).unwrap();
    two.write("revoked.pem", &revocations(&authority, Some(&certificate)), 0o644);
    assert!(client.reload().unwrap());
    assert!(!trust.holds());
    // Two lists of one authority: the older one may come first.
    let twice = [revocations(&authority, None), revocations(&authority, Some(&certificate))].concat();
    two.write("revoked.pem", &twice, 0o644);
    assert!(matches!(client.reload(), Err(TlsError::Authorities { .. })));
}

#[tokio::test]
async fn s01_handshakes_of_one_address_wait_for_each_other_and_leave_places_for_others() {
    let handshakes = Arc::new(crate::handshakes::Handshakes::default());
    let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse::<std::net::IpAddr>().unwrap());
    let mut places = Vec::new();
    for _ in 0..16 {
        places.push(handshakes.enter(one).await);
    }
    let mut waiting = Box::pin(handshakes.enter(one));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
    let _other = handshakes.enter(two).await;
    places.pop();
    let _entered = waiting.await;
}

#[tokio::test(start_paused = true)]
async fn s01_half_open_handshakes_give_way_and_addresses_take_turns() {
    let handshakes = Arc::new(crate::handshakes::Handshakes::default());
    let address = |n: u8| std::net::IpAddr::from([192, 0, 2, n]);
    // A thousand strangers of fifty addresses begin handshakes and do not go on.
    for stranger in 0..1000u32 {
        let (handshakes, address) = (handshakes.clone(), address((stranger % 50) as u8));
        tokio::spawn(async move {
            let place = handshakes.enter(address).await;
            place.gives_way().await;
        });
    }
    tokio::task::yield_now().await;
    // Ten good ones every second.
    let mut good = tokio::task::JoinSet::new();
    for n in 0..50 {
        let (handshakes, address) = (handshakes.clone(), address(200));
        good.spawn(async move {
            tokio::time::sleep(Duration::from_millis(100 * n)).await;
            let began = tokio::time::Instant::now();
            let place = handshakes.enter(address).await;
            let waited = began.elapsed();
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(place);
            waited
        });
    }
    for waited in good.join_all().await {
        assert!(waited <= Duration::from_millis(1100), "{waited:?}");
    }
    // Those that were given up in the queue leave no trace.
    let all: Vec<_> = (0..100).map(|_| Box::pin(handshakes.enter(address(201)))).collect();
    drop(all);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut places = Vec::new();
    for n in 0..4 {
        for _ in 0..16 {
            let entered = tokio::time::timeout(Duration::from_millis(1), handshakes.enter(address(n))).await;
            places.push(entered.expect("all places are free again"));
        }
    }
}

/// The list of an authority, with this certificate on it.
fn revocations(authority: &Authority, revoked: Option<&str>) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let serial = |pem: &str| {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        SerialNumber::from_slice(parsed.raw_serial())
    };
    let now = std::time::SystemTime::now();
    let revoked = revoked.map(|pem| RevokedCertParams {
        serial_number: serial(pem),
        revocation_time: now.into(),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + DAY).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.into_iter().collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let key = KeyPair::from_pem(authority.key()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate(), key).unwrap();
    list.signed_by(&issuer).unwrap().pem().unwrap()
}

#[test]
fn a_subject_is_written_as_rfc_2253_has_it() {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    let subject = |parts: &[(DnType, &str)]| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        names::subject(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    };
    let plain = [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Ex"), (DnType::CommonName, "a")];
    assert_eq!(subject(&plain).as_deref(), Some("CN=a,O=Ex,C=DE"));
    let odd = [(DnType::OrganizationName, "A, B"), (DnType::CommonName, "#x;y ")];
    assert_eq!(subject(&odd).as_deref(), Some("CN=\\#x\\;y\\ ,O=A\\, B"));
    assert_eq!(subject(&[]), None);
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_remedy() {
    let authority = authority();
    let dir = member(&authority, 1);
    let refused = |files: Files| Keeper::load(files, members(1)).unwrap_err().to_string();
    let missing = refused(Files { certificate: "/nowhere.pem".into(), ..dir.files() });
    assert!(missing.contains("/nowhere.pem"), "{missing}");
    let empty = refused(Files { certificate: dir.files().key, ..dir.files() });
    assert!(empty.contains("has no certificate"), "{empty}");
    let alone = refused(Files { authorities: None, ..dir.files() });
    assert!(alone.contains("authority"), "{alone}");
    let odd = Certificates::Members { ensemble: "no name at all".into(), me: PeerId(1) };
    let odd = Keeper::load(dir.files(), odd).unwrap_err().to_string();
    assert!(odd.contains("letters"), "{odd}");
    // Names of hosts know no upper case, so this ensemble could not be told from another one.
    let upper = Certificates::Members { ensemble: "Orders".into(), me: PeerId(1) };
    assert!(matches!(Keeper::load(dir.files(), upper), Err(TlsError::Ensemble(_))));
    dir.write("own.key", &fs::read_to_string(dir.files().key).unwrap(), 0o644);
    let open = refused(dir.files());
    assert!(open.contains("chmod o-rwx"), "{open}");
}

#[test]
fn a_name_of_a_member_is_exact() {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let authority = authority();
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = authority.issue_server("x", &names, DAY).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        names::members_named(&der, ENSEMBLE).into_iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(named(&["MEMBER-2.orders.quorate", "member-1.orders.quorate"]), [1, 2]);
    for other in [
        "member-1.billing.quorate",
        "member-01.orders.quorate",
        "member-.orders.quorate",
        "*.orders.quorate",
        "member-1.orders.quorate.example.net",
        "x.member-1.orders.quorate",
        "127.0.0.1",
    ] {
        assert_eq!(named(&[other]), [0u32; 0], "{other}");
    }
}

#[tokio::test]
async fn a_port_can_accept_plaintext_from_this_machine_beside_tls() {
    let authority = authority();
    let dir = member(&authority, 1);
    let keeper = keeper(&dir, 1);
    let acceptor = Acceptor::new(&keeper, Mode::Require, true).unwrap().with_local_plaintext();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
    let accepted = acceptor.accept(listener.accept().await.unwrap().0).await;
    assert!(matches!(accepted, Ok((Accepted::Left(_), _))), "{accepted:?}");
}

#[tokio::test]
async fn s05_internal_ports_are_for_the_own_member_and_for_gateways() {
    let authority = authority();
    let (one, two) = (member(&authority, 1), member(&authority, 2));
    let gateway = Dir::new(&authority, &authority.issue_gateway(ENSEMBLE, DAY).unwrap());
    let stores = |ensemble: &str| Certificates::Stores { ensemble: ensemble.to_owned() };
    let (server, other) = (keeper(&one, 1), keeper(&two, 2));
    let gateway = Keeper::load(gateway.files(), stores(ENSEMBLE)).unwrap();
    for (admitted, own, others, gateways) in [
        (Admitted::Own, true, false, false),
        (Admitted::Gateways, true, false, true),
        (Admitted::Members, true, true, false),
    ] {
        let acceptor = require(&server).admitting(admitted);
        for (dials, taken) in [(&server, own), (&other, others), (&gateway, gateways)] {
            let (accepted, _) = meet(&acceptor, dials, 1).await;
            assert_eq!(accepted.is_ok(), taken, "{admitted:?}: {accepted:?}");
        }
    }
    // A gateway's certificate opens no ensemble but its own, and a member's is no gateway's.
    let refused = Keeper::load(two.files(), stores(ENSEMBLE)).unwrap_err();
    assert!(matches!(&refused, TlsError::Name { .. }), "{refused}");
}

#[tokio::test]
async fn a_gateway_dials_any_member_and_nothing_else() {
    let (ours, theirs) = (authority(), authority());
    let dir = Dir::new(&ours, &ours.issue_gateway(ENSEMBLE, DAY).unwrap());
    let gateway = Keeper::load(dir.files(), Certificates::Stores { ensemble: ENSEMBLE.into() }).unwrap();
    for id in [1, 3] {
        let one = member(&ours, id);
        let acceptor = require(&keeper(&one, id)).admitting(Admitted::Gateways);
        let (accepted, dialled) = meet(&acceptor, &gateway, 9).await;
        assert_eq!(dialled, Ok(()));
        assert!(accepted.is_ok());
    }
    let stranger = member(&theirs, 1);
    let (_, dialled) = meet(&require(&keeper(&stranger, 1)), &gateway, 9).await;
    assert!(dialled.is_err());
    // One of the same authority, of another ensemble.
    let billing = Dir::new(&ours, &ours.issue_member("billing", PeerId(1), &[], DAY).unwrap());
    let member_of_billing = Certificates::Members { ensemble: "billing".into(), me: PeerId(1) };
    let billing = Keeper::load(billing.files(), member_of_billing).unwrap();
    let (_, dialled) = meet(&require(&billing), &gateway, 9).await;
    assert!(dialled.is_err());
}
