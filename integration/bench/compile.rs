//! What a compile costs inside, in user and system time, against the same compiler on the same sources in the same tree by
//! `unshare --map-root-user --map-auto --mount` and chroot. Prints Markdown.
//!
//! Two sets of C files: some large ones, optimized, and many small ones, where starting programs and finding headers is
//! most of the work. `SANDBOX_BENCH_COMPILES` (5 rounds), `SANDBOX_BENCH_LARGE` (30 files), `SANDBOX_BENCH_SMALL` (400).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod common;
mod native;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{Result, Sandbox, Scratch, Times, number, output};
use native::{Native, inside, prepare, processor_time};

/// Of the native user and system time.
const BAR: f64 = 1.05;

fn main() -> Result<()> {
    let scratch = Scratch::new("compile")?;
    let rounds = number("SANDBOX_BENCH_COMPILES", 5)?;
    let sources = scratch.path().join("sources");
    write("large", &sources, number("SANDBOX_BENCH_LARGE", 30)?, 150, "-O2")?;
    write("small", &sources, number("SANDBOX_BENCH_SMALL", 400)?, 1, "-O0")?;
    let native = Native::new(scratch.path())?;
    output(
        std::process::Command::new("cp").arg("-r").arg(&sources).arg(native.tree.join("srv/c")),
    )?;
    let sandbox = Sandbox::new(scratch.path());
    if let Some(sandbox) = &sandbox {
        for ids in ["subuid", "single"] {
            prepare(sandbox, ids, &sources, "cp -r /in /srv/c")?;
        }
    }
    println!("## User and system time of a compile, {rounds} rounds\n");
    println!("| what | lower quartile, ms | median, ms | ratios |\n| --- | --- | --- | --- |");
    for set in ["large", "small"] {
        compile(set, &native, sandbox.as_ref(), rounds)?;
    }
    Ok(())
}

/// One set by all rivals in turn.
fn compile(set: &str, native: &Native, sandbox: Option<&Sandbox>, rounds: usize) -> Result<()> {
    let folder = format!("/srv/c/{set}");
    let words = ["make", "-s", "-C", &folder, "clean", "all"];
    let mut rivals = vec![(format!("{set} files: natively"), native.command(&words))];
    for ids in sandbox.iter().flat_map(|_| ["subuid", "single"]) {
        let command = sandbox.map(|sandbox| inside(sandbox, ids, &words)).ok_or("no sandbox")?;
        rivals.push((format!("{set} files: sandbox run, {ids}"), command));
    }
    let mut times = vec![Times::default(); rivals.len()];
    // The first time, unmeasured, brings the compiler into memory.
    for round in 0..=rounds {
        for turn in 0..rivals.len() {
            let at = (turn + round) % rivals.len();
            let took = processor_time(&mut rivals[at].1)?;
            if round > 0 {
                times[at].add(took);
            }
        }
    }
    for (at, (name, _)) in rivals.iter().enumerate() {
        println!("{}", times[at].row(name, (at > 0).then_some(&times[0])));
    }
    if let Some(slowest) = times[1..].iter().map(Times::quartile).max() {
        let ratio = slowest.as_secs_f64() / times[0].quartile().as_secs_f64();
        let word = if ratio <= BAR { "reached" } else { "not reached" };
        println!("| bar of the {set} files: {BAR} | | | {word}, {ratio:.3} |");
    }
    Ok(())
}

/// Writes a set of C files, each of so many functions, and their Makefile.
fn write(set: &str, folder: &Path, files: usize, functions: usize, flags: &str) -> Result<()> {
    let folder = folder.join(set);
    fs::create_dir_all(&folder)?;
    let mut objects = String::new();
    for file in 0..files {
        let mut text = String::from(HEAD);
        for function in 0..functions {
            write!(text, "{}", BODY.replace("NAME", &format!("f{file}_{function}")))?;
        }
        fs::write(folder.join(format!("f{file}.c")), text)?;
        write!(objects, " f{file}.o")?;
    }
    let rules = format!("CFLAGS = {flags}\nall:{objects}\nclean:\n\t@rm -f *.o\n");
    Ok(fs::write(folder.join("Makefile"), rules)?)
}

const HEAD: &str = "#include <errno.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/stat.h>\n\
    #include <unistd.h>\nstruct node { struct node *next; char name[40]; long value; };\n";

const BODY: &str = r#"
static long NAME_count(const struct node *list, const char *name)
{
	long sum = 0;

	for (; list; list = list->next)
		if (!strncmp(list->name, name, sizeof(list->name)))
			sum += list->value % 7 ? list->value * 3 : list->value >> 2;
	return sum;
}

struct node *NAME(struct node *list, char *line, int length)
{
	struct node *node = malloc(sizeof(*node));
	struct stat stat;
	int at, depth = 0;

	if (!node || lstat(line, &stat) < 0)
		return errno == ENOENT ? list : NULL;
	for (at = 0; at < length; at++)
		switch (line[at]) {
		case '(': depth++; break;
		case ')': depth--; break;
		case '\t': line[at] = ' '; break;
		default:
			if (depth > 3)
				line[at] ^= (char)(stat.st_mode >> depth);
		}
	snprintf(node->name, sizeof(node->name), "%s:%d", line, depth);
	node->value = NAME_count(list, node->name) + stat.st_size;
	node->next = list;
	return node;
}
"#;
