//! `sandbox man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use super::Cli;
use super::output::print;
use super::report::Outcome;
use crate::fault::{Context, Fault, Result, printable};

/// What a program that calls this one wants to know, and no flag says.
const REST: &str = r#".SH "EXIT STATUS"
Of
.BR run ,
.BR shell ,
.BR start ,
.BR exec ,
.BR unshare ,
.BR wait " and " attach
it is the command's own; 128+n if signal n ended it; 127 if it was not found, 126 if it cannot be executed, 125 for
anything of sandbox. Of all others:
.TP
0
done
.TP
1
failed
.TP
2
wrong use
.TP
3
no such box, snapshot, run or path
.TP
4
conflict: the name is taken, the place is not empty
.TP
5
busy: somebody else is at work there
.TP
6
the host cannot do it:
.B sandbox doctor
says why
.TP
7
the store is damaged:
.B sandbox fsck
says where
.SH ENVIRONMENT
.TP
.B SANDBOX_BASE_DIR
the store, if there is no
.B \-\-base\-dir
.TP
.B SANDBOX_BOX
the box, if there is no
.B \-\-box
.TP
.B NO_COLOR
no colours, if it is not empty
.SH FILES
.TP
.I $XDG_DATA_HOME/sandbox
the store; of root
.I /var/lib/sandbox
if XDG_DATA_HOME is not set
.TP
.IR /etc/subuid ", " /etc/subgid
the ids that a user may have inside
.SH "SEE ALSO"
.BR subuid (5),
.BR newuidmap (1),
.BR user_namespaces (7)
"#;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The page of this command, as in `man run` or `man box set`; else that of the program
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,

    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// Prints a page, for `man -l -`, or writes all of them.
pub(super) fn run(args: &Args) -> Outcome {
    match &args.dir {
        Some(dir) => write_all(dir)?,
        None => print(&String::from_utf8_lossy(&page(&find(&args.command)?)?))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole command line, with the names of its pages.
fn built() -> clap::Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

fn find(words: &[String]) -> Result<clap::Command> {
    let mut command = built();
    for word in words {
        let found = command.find_subcommand(word).cloned();
        command = found.ok_or_else(|| {
            Fault::usage(format!("man: {}: no such command", printable(word)))
                .hint("`sandbox --help` lists them")
        })?;
    }
    Ok(command)
}

fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let name = name(command);
    let mut text = Vec::new();
    Man::new(command.clone()).title(&name).render(&mut text).context("make the page of", &name)?;
    if name == "sandbox" {
        text.extend_from_slice(REST.as_bytes());
    }
    Ok(text)
}

/// `sandbox-box-set`.
fn name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn write_all(dir: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(dir).context("make directory", dir.display())?;
    let mut commands = vec![built()];
    while let Some(command) = commands.pop() {
        let path = dir.join(format!("{}.1", name(&command)));
        std::fs::write(&path, page(&command)?).context("write", path.display())?;
        commands
            .extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    }
    Ok(())
}
