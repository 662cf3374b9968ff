use super::*;
use crate::commands::{await_standby, prune, serve, status, verify};

fn commands() -> [&'static Command; 7] {
    [
        receive::command(Face::WalReceiver),
        receive::command(Face::PgReceivewal),
        &await_standby::COMMAND,
        &prune::args::COMMAND,
        &serve::args::COMMAND,
        &status::COMMAND,
        &verify::args::COMMAND,
    ]
}

#[test]
fn the_form_of_each_option_agrees_with_what_it_does() {
    for flag in commands().into_iter().flat_map(Command::flags) {
        let form = flag.form;
        let long = form.strip_prefix(&format!("-{}, ", flag.letter().unwrap_or('-')));
        assert_eq!(long.is_some(), flag.letter().is_some(), "{form}");
        assert_eq!(flag.dashed(), format!("--{}", flag.name()), "{form}");
        let value = matches!(flag.set, Set::Path(_) | Set::Value(_));
        assert_eq!(form.contains('='), value, "{form}");
        let has_default = !(flag.default)().is_empty();
        assert_eq!(flag.help.contains("{default}"), has_default, "{form}");
    }
}

#[test]
fn no_command_has_two_options_of_the_same_name() {
    for command in commands() {
        let mut names: Vec<_> = command.flags().map(|flag| flag.name().to_owned()).collect();
        names.extend(
            command
                .flags()
                .filter_map(|flag| flag.letter())
                .map(String::from),
        );
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{}", command.called("wal-receiver"));
    }
}

#[test]
fn what_is_abbreviated_is_an_option_of_both_faces() {
    for face in [Face::WalReceiver, Face::PgReceivewal] {
        for name in ABBREVIATED.split(' ') {
            let mut flags = receive::command(face).flags();
            assert!(flags.any(|flag| flag.name() == name), "{name}");
        }
    }
}
