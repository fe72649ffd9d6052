use super::*;

fn parsed(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("sandbox").chain(words.iter().copied()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_and_command_has_one_line_of_help() {
    fn check(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty() && !help.contains('\n'), "{}: {arg}", command.get_name());
            assert!(!help.ends_with('.'), "{}: {arg}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn command_words_pass_after_the_first_one() {
    for words in [
        &["run", "--", "ls", "--json", "-la"][..],
        &["run", "ls", "--json", "-la"],
        &["run", "--net", "host", "ls", "--json", "-la"],
    ] {
        let cli = parsed(words).unwrap();
        assert!(!cli.common.json, "{words:?}");
        let Command::Run(args) = cli.command else { panic!("{words:?}") };
        assert_eq!(args.words(), ["ls", "--json", "-la"], "{words:?}");
    }
}

#[test]
fn mistakes_are_refused() {
    for words in [
        &["run"][..],
        &["run", "--"],
        &["run", "--bogus", "ls"],
        &["run", "--keep", "--commit", "x", "--", "ls"],
        &["run", "--keep=always", "--", "ls"],
        &["run", "--timeout", "0", "--", "ls"],
        &["run", "--preserve-fd", "2", "--", "ls"],
        &["shell", "--from", "x", "--run", "r-1"],
        &["list", "--quiet", "--verbose"],
        &["diff", "a", "b", "c"],
        &["rm"],
    ] {
        assert!(parsed(words).is_err(), "{words:?}");
    }
}

#[test]
fn common_flags_stand_anywhere() {
    for words in [&["--json", "-b", "x", "list"][..], &["list", "--json", "--box=x"]] {
        let cli = parsed(words).unwrap();
        assert!(cli.common.json);
        assert_eq!(cli.common.box_name().unwrap().to_string(), "x");
    }
}

#[test]
fn the_form_of_a_mistake_is_known_before_the_rest() {
    let typed = |words: &[&str]| {
        let typed = Typed::of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        (typed.codes, typed.json, typed.color)
    };
    use Codes::{Own, Payload};
    use ColorChoice::{Always, Auto, Never};
    let cases = [
        (&["run", "--bogus"][..], (Payload, false, Auto)),
        (&["-b", "run", "list"], (Own, false, Auto)),
        (&["--base-dir=/x", "shell", "--json"], (Payload, true, Auto)),
        (&["run", "--", "x", "--json"], (Payload, false, Auto)),
        (&["--color", "never", "gc"], (Own, false, Never)),
        (&["gc", "--color=always"], (Own, false, Always)),
        (&[], (Own, false, Auto)),
    ];
    for (words, expected) in cases {
        assert_eq!(typed(words), expected, "{words:?}");
    }
}
