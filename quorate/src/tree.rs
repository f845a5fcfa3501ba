//! Directory trees as znodes: `quorate import` and `quorate export`.

use api::{Acl, NodeKind, Quota};
use bytes::Bytes;

mod archive;
pub(crate) mod export;
pub(crate) mod import;
mod name;
mod scan;
mod value;
pub(crate) mod walk;

/// What comes back of a znode, besides its path.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Znode {
    pub(crate) data: Option<Bytes>,
    pub(crate) kind: NodeKind,
    pub(crate) acl: Acl,
    pub(crate) quota: Quota,
    /// The number of the next sequential child.
    pub(crate) sequence: u64,
}

/// The creates that a znode has seen below it, by what its Stat counts: the number of its next sequential child. Too small if
/// names that collided with sequential ones are deleted, or after 2^31 changes, when the count starts again.
fn creates(stat: &api::Stat) -> u64 {
    (u64::from(stat.cversion.cast_unsigned()) + u64::from(stat.num_children)) / 2
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::{
        AclEntry, Create, Identities, Identity, MultiOp, Path, Permissions, Read, ReadOutcome, Scheme, Write,
        Zxid, ports::PAYLOAD_MAX, quota::Bounds,
    };
    use proptest::prelude::*;

    use store_core::{At, By};

    use super::{archive, creates, export, import, name, scan, value, *};

    /// Paths below the root, with what they have.
    type Tree = BTreeMap<String, Znode>;

    fn names() -> impl Strategy<Value = String> {
        let strange =
            ["100%", "100%25", "%value", "%25value", "%2E%2E", "..%2F", "%41", "%zz", "%", "ä ö", "\u{feff}"];
        prop_oneof![
            4 => "[a-c]{1,2}",
            2 => prop::sample::select(strange.to_vec()).prop_map(str::to_owned),
            1 => Just("x".repeat(255)),
            1 => Just("x".repeat(256)),
            1 => "\\PC{1,8}".prop_filter("no name", |n| Path::root().child(n).is_ok() && !n.contains('/')),
        ]
    }

    fn values() -> impl Strategy<Value = Bytes> {
        let strange: [&[u8]; 6] = [
            b"",
            value::DIRECTORY,
            b"\0quorate:",
            b"\0quorate:file:",
            b"\0quorate:file:plain",
            b"\0quorate:file:\0quorate:x",
        ];
        prop_oneof![
            prop::sample::select(strange.to_vec()).prop_map(Bytes::from_static),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        ]
    }

    fn kinds() -> impl Strategy<Value = NodeKind> {
        prop_oneof![
            4 => Just(NodeKind::Persistent),
            1 => Just(NodeKind::Container),
            1 => (1..=NodeKind::TTL_MAX_MS).prop_map(|ms| NodeKind::Ttl { ms }),
        ]
    }

    fn acls() -> impl Strategy<Value = Acl> {
        let identities = [
            (Scheme::World, "anyone"),
            (Scheme::Digest, "ada:3b+/="),
            (Scheme::Digest, ":h"),
            (Scheme::Ip, "fd00::/16"),
            (Scheme::X509, "CN=a,O=\"b\\:c"),
            (Scheme::User, "ä:r"),
            (Scheme::Role, "super"),
        ];
        let entry =
            (prop::sample::select(identities.to_vec()), 0..32u32).prop_map(|((scheme, id), bits)| AclEntry {
                identity: Identity::new(scheme, id).unwrap(),
                permissions: Permissions::from_bits(bits).unwrap(),
            });
        prop_oneof![
            3 => Just(Acl::default()),
            1 => prop::collection::vec(entry, 1..4).prop_map(|entries| Acl::new(entries).unwrap()),
        ]
    }

    fn quotas() -> impl Strategy<Value = Quota> {
        let bounds = || (prop::option::of(any::<u64>()), prop::option::of(0..3u64));
        let bounds = move || bounds().prop_map(|(znodes, bytes)| Bounds { znodes, bytes });
        let quota = (bounds(), bounds()).prop_map(|(soft, hard)| Quota { soft, hard });
        prop_oneof![4 => Just(Quota::default()), 1 => quota]
    }

    fn znodes() -> impl Strategy<Value = Znode> {
        let all = (prop::option::weighted(0.8, values()), kinds(), acls(), quotas(), 0..1_000_000_000u64);
        let any =
            all.prop_map(|(data, kind, acl, quota, sequence)| Znode { data, kind, acl, quota, sequence });
        let plain = (values(), 0..1_000_000_000u64).prop_map(|(data, sequence)| Znode {
            data: Some(data),
            sequence,
            ..Znode::default()
        });
        prop_oneof![2 => plain, 1 => any]
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let nodes = prop::collection::vec((any::<prop::sample::Index>(), names(), znodes()), 0..12);
        // Also trees that a directory can hold.
        let only_plain = any::<bool>();
        (znodes(), nodes, only_plain).prop_map(|(root, nodes, only_plain)| {
            let plain = |znode: Znode| match only_plain {
                true => Znode {
                    data: znode.data.or_else(|| Some(Bytes::new())),
                    sequence: znode.sequence,
                    ..Znode::default()
                },
                false => znode,
            };
            let mut tree = Tree::from([(String::new(), plain(root))]);
            for (parent, name, znode) in nodes {
                let parent = tree.keys().nth(parent.index(tree.len())).cloned().unwrap_or_default();
                tree.insert(format!("{parent}/{name}"), plain(znode));
            }
            for path in tree.keys().cloned().collect::<Vec<_>>() {
                let children = children(&tree, &path);
                tree.get_mut(&path).unwrap().sequence += children;
            }
            tree
        })
    }

    fn children(tree: &Tree, of: &str) -> u64 {
        tree.keys().filter(|k| k.rsplit_once('/').is_some_and(|(parent, _)| parent == of)).count() as u64
    }

    fn export(tree: &Tree, root: &Path, mut target: export::Target) -> Result<(), crate::exit::Failure> {
        for (below, znode) in tree {
            let path = archive::znode(root, below).unwrap();
            target.write(&path, znode.clone(), children(tree, below) > 0)?;
        }
        target.finish().map(drop)
    }

    fn imported(source: import::Source, root: &Path) -> Tree {
        let mut tree = Tree::new();
        source.read(root, 1 << 20, |new| {
            let new = new.unwrap();
            let below = new.path.as_str().strip_prefix(root.as_str()).unwrap().to_owned();
            let parent = below.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            assert!(parent.is_none_or(|parent| tree.contains_key(&parent)), "parents come first");
            assert!(tree.insert(below, new.znode).is_none());
            true
        });
        tree
    }

    /// What a store has after an import to its root or below it.
    fn stored(source: import::Source, root: &Path) -> Tree {
        let superuser = Identities::new([Identity::superuser()]).unwrap();
        let by = By { session: None, identities: &superuser };
        let at = At { zxid: Zxid(1), time_ms: 1 };
        let mut store = store_core::Tree::default();
        let (mut counters, mut quotas, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        if !root.is_root() {
            store.write(at, by, &Write::Create(Create::new(root.parent().unwrap(), ""))).unwrap();
        }
        source.read(root, 1 << 20, |new| {
            let new = new.unwrap();
            paths.push(new.path.clone());
            counters.push((new.path.clone(), new.znode.sequence));
            quotas.push((new.path.clone(), new.znode.quota));
            for write in new.writes() {
                store.write(at, by, &write).unwrap();
            }
            true
        });
        let sequences: BTreeMap<Path, u64> = counters
            .into_iter()
            .map(|(path, sequence)| {
                let stat = store.stat(&path).unwrap();
                (path, creates(&stat) + import::missing(&stat, sequence))
            })
            .collect();
        for (path, quota) in quotas {
            store.write(at, by, &Write::SetQuota { path, quota }).unwrap();
        }
        let ReadOutcome::Quotas { quotas, .. } =
            store.read(&Read::Quotas { path: root.clone(), page: Default::default() }, &superuser).unwrap()
        else {
            panic!("no quotas");
        };
        let quotas: BTreeMap<Path, Quota> = quotas.into_iter().map(|at| (at.path, at.quota)).collect();
        let znode = |path: Path| {
            let ReadOutcome::Data { data, stat } =
                store.read(&Read::Get { path: path.clone() }, &superuser).unwrap()
            else {
                panic!("no value");
            };
            let quota = quotas.get(&path).copied().unwrap_or_default();
            let acl = store.acl(&path).unwrap();
            let below = path.as_str().strip_prefix(root.as_str().trim_end_matches('/')).unwrap();
            let below = below.trim_end_matches('/').to_owned();
            (below, Znode { data, kind: stat.kind, acl, quota, sequence: sequences[&path] })
        };
        paths.into_iter().map(znode).collect()
    }

    /// A path of this many bytes.
    fn path(bytes: usize) -> Path {
        let names = std::iter::repeat_n("x".repeat(250), bytes / 251);
        let rest = "y".repeat((bytes % 251).saturating_sub(1));
        let names: Vec<String> = names.chain(Some(rest).filter(|rest| !rest.is_empty())).collect();
        Path::new(&format!("/{}", names.join("/"))).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn b21_counters_are_restored_in_writes_that_a_node_takes(
            bytes in prop_oneof![1usize..64, 64usize..512, 512usize..8181],
            missing in prop_oneof![0u64..10, 4900u64..5100, 0u64..11_000],
            made in 0u64..3,
        ) {
            let parent = path(bytes);
            let at = At { zxid: Zxid(1), time_ms: 1 };
            let mut tree = store_core::Tree::default();
            let mut write = |write: &Write| tree.write(at, By::anonymous(None), write);
            let create = |path: &str, sequential| {
                Write::Create(Create { sequential, ..Create::new(Path::new(path).unwrap(), "") })
            };
            for (end, _) in parent.as_str().match_indices('/').skip(1) {
                write(&create(&parent.as_str()[..end], false)).unwrap();
            }
            if !parent.is_root() {
                write(&create(parent.as_str(), false)).unwrap();
            }
            let child = |name: &str| parent.child(name).unwrap();
            for n in 0..made {
                write(&create(child(&n.to_string()).as_str(), false)).unwrap();
            }
            for parts in import::counting(&parent, missing) {
                // The bounds of a node.
                let bytes = |part: &MultiOp| match part {
                    MultiOp::Create(create) => create.path.as_str().len() + 192,
                    MultiOp::Delete { path, .. } => path.as_str().len() + 192,
                    other => panic!("{other:?}"),
                };
                prop_assert!(parts.len() <= 10_000);
                prop_assert!(parts.iter().map(bytes).sum::<usize>() <= PAYLOAD_MAX - (64 << 10));
                write(&Write::Multi(parts)).unwrap();
            }
            let ReadOutcome::Exists { stat: Some(stat) } =
                tree.read(&Read::Exists { path: parent.clone() }, &api::Identities::NONE).unwrap()
            else {
                panic!("it is gone");
            };
            prop_assert_eq!((creates(&stat), u64::from(stat.num_children)), (missing + made, made));
        }
    }

    #[test]
    fn b21_a_counter_that_cannot_be_restored_is_one_that_no_child_can_use() {
        for bytes in [8181, 8182, 8192] {
            let parent = path(bytes);
            assert_eq!(parent.as_str().len(), bytes);
            let numbered = parent.child("0000000000");
            assert_eq!(import::counting(&parent, 1).count(), usize::from(numbered.is_ok()));
        }
    }

    proptest! {
        #[test]
        fn b21_any_tree_comes_back_from_an_archive_and_from_a_directory_if_that_can_hold_it(tree in trees()) {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (Path::new("/from").unwrap(), Path::new("/to/there").unwrap());
            let file = dir.path().join("archive");
            export(&tree, &from, export::Target::archive(from.clone(), &file).unwrap()).unwrap();
            let open = |to: &Path| import::Source::open(&file, to, 1 << 20, scan::Skip::default());
            prop_assert_eq!(&imported(open(&to).unwrap(), &to), &tree);
            let mut counted = tree.clone();
            for (path, znode) in &mut counted {
                if znode.kind == NodeKind::Container && children(&tree, path) == 0 {
                    znode.sequence = 0;
                }
            }
            prop_assert_eq!(&stored(open(&to).unwrap(), &to), &counted);
            let root = Path::root();
            match tree[""].kind {
                NodeKind::Persistent => prop_assert_eq!(&stored(open(&root).unwrap(), &root), &counted),
                _ => prop_assert!(open(&root).err().unwrap().to_string().contains("import ARCHIVE /new")),
            }

            let directory = dir.path().join("directory");
            let exported = export(&tree, &from, export::Target::directory(from.clone(), &directory).unwrap());
            let can_be_held = |path: &String| {
                let names: Vec<_> = path.split('/').filter(|n| !n.is_empty()).map(name::to_file).collect();
                names.iter().all(|name| name.as_ref().is_some_and(|name| name.len() <= 255 && name != value::VALUE))
                    && names.iter().flatten().map(|name| name.len() + 1).sum::<usize>() < 3900
            };
            let is_plain = |znode: &Znode| {
                let Znode { data, kind, acl, quota, sequence: _ } = znode;
                data.is_some() && *kind == NodeKind::Persistent && acl.is_open() && quota.is_none()
            };
            if tree.keys().all(can_be_held) && tree.values().all(is_plain) {
                exported.unwrap();
                let source = import::Source::open(&directory, &to, 1 << 20, scan::Skip::default()).unwrap();
                let without = |(path, znode)| (path, Znode { sequence: 0, ..znode });
                let without_counters: Tree = tree.into_iter().map(without).collect();
                prop_assert_eq!(imported(source, &to), without_counters);
            } else {
                prop_assert!(exported.unwrap_err().to_string().contains("--archive"));
            }
        }
    }
}
