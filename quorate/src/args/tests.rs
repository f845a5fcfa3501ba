//! Accepted and refused command lines.

use api::{ReadLevel, Zxid};
use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_arguments_are_refused_with_what_is_expected() {
    let refused = |args: &[&str]| Cli::try_parse_from(args).unwrap_err().to_string();
    for bad in ["127.0.0.1", "", ",", "ftp://a:1", "http://a", "a:1,b", "user@a:1", "http://u:p@a:1"] {
        assert!(
            refused(&["quorate", "get", "/a", "--endpoints", bad]).contains("expected host:port"),
            "{bad}"
        );
    }
    let cli = Cli::try_parse_from([
        "quorate",
        "status",
        "--endpoints",
        "HTTP://127.0.0.1:1/, [::1]:2,",
        "--endpoints",
        "a:3",
    ]);
    let Command::Status(status) = cli.unwrap().command else { panic!("another command") };
    assert_eq!(status.nodes.endpoints.addresses(), ["127.0.0.1:1", "[::1]:2", "a:3"], "b24");
    assert!(refused(&["quorate", "set", "/a", "x", "--version", "-1"]).contains("-1"));
    assert!(refused(&["quorate", "set", "/a", "x", "--file", "f"]).contains("cannot be used with"));
    assert!(refused(&["quorate", "up", "--nodes", "10"]).contains("1..=9"));
    assert!(refused(&["quorate", "get", "/a", "--trace-to", "x", "--trace-ratio", "2"]).contains("0 to 1"));
    for none in ["0", "soon"] {
        let text = refused(&["quorate", "get", "/a", "--timeout", none]);
        assert!(text.contains("expected a duration such as") && text.contains("above 0"), "{text}");
    }
    assert!(refused(&["quorate", "serve", "--set", "x"]).contains("expected KEY=VALUE"));
    assert!(refused(&["quorate", "bench", "write", "--size", "1Q"]).contains("expected a size"));
    assert!(refused(&["quorate", "get", "/a", "--at-least", "7"]).contains("expected a zxid"));
    assert!(refused(&["quorate", "get", "/a", "--at-least", "0x+7"]).contains("expected a zxid"));
    for both in [&["--level", "linearizable", "--at-least", "0x7"][..], &["--sync", "--level", "local"]] {
        assert!(refused(&[&["quorate", "get", "/a"], both].concat()).contains("cannot be used with"));
    }
}

#[test]
fn reads_select_a_consistency_level() {
    let level = |args: &[&str]| match Cli::try_parse_from([&["quorate"], args].concat()).unwrap().command {
        Command::Get(args) => args.read_level(),
        Command::Stat(args) => args.query.freshness.read_level(),
        Command::Ls(args) => args.query.freshness.read_level(),
        other => panic!("{other:?}"),
    };
    assert_eq!(level(&["get", "/a"]), ReadLevel::Local);
    assert_eq!(level(&["get", "/a", "--sync"]), ReadLevel::Linearizable);
    assert_eq!(level(&["get", "/a", "--level", "linearizable"]), ReadLevel::Linearizable);
    assert_eq!(level(&["stat", "/a", "--level", "local"]), ReadLevel::Local);
    assert_eq!(level(&["ls", "--at-least", "0x10000000a"]), ReadLevel::AtLeast(Zxid(0x1_0000_000a)));
}

#[test]
fn every_command_has_an_example_or_subcommands() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let name = command.get_name();
        assert!(help.contains(&format!("quorate {name}")) || command.has_subcommands(), "{name}");
    }
}
