//! Directory trees as znodes: `quorate import` and `quorate export`.

mod archive;
pub(crate) mod export;
pub(crate) mod import;
mod name;
mod scan;
mod value;
pub(crate) mod walk;

/// The creates that a znode has seen below it, by what its Stat counts: the number of its next sequential child. Too small if
/// names that collided with sequential ones are deleted, or after 2^31 changes, when the count starts again.
fn creates(stat: &api::Stat) -> u64 {
    (u64::from(stat.cversion.cast_unsigned()) + u64::from(stat.num_children)) / 2
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::{Create, MultiOp, Path, Read, ReadOutcome, Stat, Write, Zxid, ports::PAYLOAD_MAX};
    use bytes::Bytes;
    use proptest::prelude::*;

    use store_core::{At, By};

    use super::{archive, creates, export, import, name, scan, value};

    /// Paths below the root, with what they have.
    type Tree = BTreeMap<String, (Bytes, u64)>;

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

    fn trees() -> impl Strategy<Value = Tree> {
        let node = (any::<prop::sample::Index>(), names(), values(), 0..1_000_000_000u64);
        (values(), prop::collection::vec(node, 0..12)).prop_map(|(root, nodes)| {
            let mut tree = Tree::from([(String::new(), (root, 3))]);
            for (parent, name, value, sequence) in nodes {
                let parent = tree.keys().nth(parent.index(tree.len())).cloned().unwrap_or_default();
                tree.insert(format!("{parent}/{name}"), (value, sequence));
            }
            let children = |tree: &Tree, of: &str| {
                tree.keys().filter(|k| k.rsplit_once('/').is_some_and(|(parent, _)| parent == of)).count()
                    as u64
            };
            let counted = tree.iter().map(|(k, (v, n))| (k.clone(), (v.clone(), n + children(&tree, k))));
            counted.collect()
        })
    }

    fn export(tree: &Tree, root: &Path, mut target: export::Target) -> Result<(), crate::exit::Failure> {
        for (below, (data, next_sequence)) in tree {
            let children =
                tree.keys().filter(|k| k.rsplit_once('/').is_some_and(|(parent, _)| parent == below));
            let num_children = children.count() as u32;
            let cversion = (2 * next_sequence - u64::from(num_children)) as i32;
            let stat = Stat { num_children, cversion, ..Stat::default() };
            target.write(&archive::znode(root, below).unwrap(), data.clone(), &stat)?;
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
            assert!(tree.insert(below, (new.data, new.sequence)).is_none());
            true
        });
        tree
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
            let source = import::Source::open(&file, &to, 1 << 20, scan::Skip::default()).unwrap();
            prop_assert_eq!(&imported(source, &to), &tree);

            let directory = dir.path().join("directory");
            let exported = export(&tree, &from, export::Target::directory(from.clone(), &directory).unwrap());
            let can_be_held = |path: &String| {
                let names: Vec<_> = path.split('/').filter(|n| !n.is_empty()).map(name::to_file).collect();
                names.iter().all(|name| name.as_ref().is_some_and(|name| name.len() <= 255 && name != value::VALUE))
                    && names.iter().flatten().map(|name| name.len() + 1).sum::<usize>() < 3900
            };
            if tree.keys().all(can_be_held) {
                exported.unwrap();
                let source = import::Source::open(&directory, &to, 1 << 20, scan::Skip::default()).unwrap();
                let without_counters: Tree = tree.into_iter().map(|(path, (data, _))| (path, (data, 0))).collect();
                prop_assert_eq!(imported(source, &to), without_counters);
            } else {
                prop_assert!(exported.unwrap_err().to_string().contains("--archive"));
            }
        }
    }
}
