//! Chains that are longer than one may be: folding, seen from outside. The limit is lowered by the hidden
//! variable, so that a handful of runs does it.

use std::collections::BTreeMap;

use crate::common::{Cmd, Env};

/// Everything that can be seen of a tree: names, types, modes, owners, times, links, and what is in the files.
const LOOK: &str = "cd /opt && find . -exec stat -c '%n %f %u %g %Y %N' {} + | sort && \
                    find . -type f -exec sha256sum {} + | sort";

fn short(command: Cmd) -> Cmd {
    command.env("SANDBOX_LONGEST_CHAIN", "6")
}

/// `run --keep` in a box whose chains have room for six layers.
fn keep(env: &Env, line: &str) {
    drop(short(env.line(&["--keep"], line)).run().ok());
}

fn look(env: &Env, from: &str) -> String {
    env.line(&["--from", from], LOOK).run().ok().text()
}

fn chain(env: &Env, snapshot: &str) -> Vec<String> {
    let shown = env.json(&["show", snapshot]);
    let chain = shown["chain"].as_array().unwrap();
    chain.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// What overlayfs shows must not change when layers are folded: all that can lie over something else.
const STEPS: [&str; 24] = [
    "cd /opt; mkdir -p d/e/f; echo 1 >d/e/f/one; echo 1 >d/x; ln -s x d/link; mkfifo d/fifo",
    "cd /opt; rm -r deep; echo 2 >d/two; ln d/two d/again",
    "cd /opt; mkdir deep; echo 3 >deep/three; rm d/x",
    "cd /opt; rm -r d/e; echo 4 >d/e",
    "cd /opt; rm d/e; mkdir d/e; echo 5 >d/e/five; chmod 1777 d",
    "cd /opt; rm -r d; mkdir d; echo 6 >d/six",
    "cd /opt; rm plain; mkdir plain; echo 7 >plain/seven",
    "cd /opt; rm -r plain; echo 8 >plain",
    "cd /opt; mv deep gone; mkdir deep; touch -d @1000000000 deep d",
    "cd /opt; rm -r gone; rm d/six; mkdir -m 700 secret; echo 10 >secret/ten",
    "cd /opt; chmod 0 secret; rm type; mkdir type; ln -s /etc type/link; mv plain type/plain",
    "cd /opt; rm -rf type; mkfifo type; echo 12 >>deep/three",
    "cd /opt; mkdir -p wide; for i in 1 2 3 4 5 6 7 8 9; do echo $i >wide/$i; done",
    "cd /opt; rm wide/[1-5]; echo again >wide/3",
    "cd /opt; mv wide/9 wide/nine; rm type; mkdir type; chmod 2755 type",
    "cd /opt; rm -r deep; ln -s d deep",
    "cd /opt; rm deep; mkdir deep; echo 17 >deep/a; chmod 600 deep/a",
    "cd /opt; rm -r wide; mkdir -p wide/1/2/3; echo 18 >wide/1/2/3/4",
    "cd /opt; rm -r wide/1/2; mkdir wide/1/2; chmod 700 secret; rm secret/ten; echo 19 >secret/n",
    "cd /opt; echo 20 >'a b'; touch -d @5 'a b'; mv 'a b' \"$(printf 'x\\ny')\"",
    "cd /opt; rm -r d type; touch d",
    "cd /opt; rm d; mkdir -p d/e/f; echo 22 >d/e/f/one; chown 0:0 d",
    "cd /opt; for i in 1 2 3; do rm -rf t; mkdir t; echo $i >t/$i; done",
    "cd /opt; rm -r secret deep; echo 24 >new",
];

#[test]
fn every_name_made_on_the_way_shows_its_own_content() {
    let env = Env::filled();
    let mut seen = BTreeMap::from([("postinit".to_owned(), look(&env, "postinit"))]);
    for (number, step) in STEPS.iter().enumerate() {
        keep(&env, step);
        let name = format!("s{number}");
        drop(env.sandbox(&["snapshot", &name]).run().ok());
        assert!(chain(&env, &name).len() <= 6, "{name}");
        // Before anything is folded that is in it, and again when all has been.
        assert_eq!(look(&env, "head"), look(&env, &name));
        seen.insert(name.clone(), look(&env, &name));
    }
    for (name, content) in &seen {
        assert_eq!(&look(&env, name), content, "{name}");
    }
}
