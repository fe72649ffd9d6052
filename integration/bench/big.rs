//! A store as it is after years: thousands of layers in hundreds of boxes, made at once.
//!
//! Its files are written as `docs/format.md` tells, and not by the program under test, which would sync the
//! disk for each of them. The first box is made by the program, and the others are like it.

use std::fs;
use std::path::Path;

use sandbox::store::LayerId;
use serde_json::{Value, json};

use super::common::{Result, Sandbox};

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// How many boxes: `box0` and so on.
    pub(crate) boxes: usize,
    /// How many snapshots each has, `s0` and so on, each on a layer of its own on top of the one before.
    pub(crate) snapshots: usize,
}

/// Makes the store.
pub(crate) fn make(sandbox: &Sandbox, size: Size) -> Result<()> {
    sandbox.call("init first --from scratch")?;
    let base = &sandbox.base_dir;
    let record: Value = serde_json::from_slice(&fs::read(base.join("boxes/first/box.json"))?)?;
    let head: Value = serde_json::from_slice(&fs::read(base.join("boxes/first/head"))?)?;
    let ground = layer(base, &head["head"])?;
    for number in 0..size.boxes {
        let mut record = record.clone();
        record["name"] = json!(format!("box{number}"));
        fill(base, &record, &ground, size.snapshots)?;
    }
    // What was written here is not to be waited for by the first command that syncs.
    Ok(rustix::fs::syncfs(fs::File::open(base)?)?)
}

fn layer(base: &Path, id: &Value) -> Result<Value> {
    let id = id.as_str().ok_or("the first box has no head")?;
    Ok(serde_json::from_slice(&fs::read(base.join("layers").join(id).join("layer.json"))?)?)
}

fn fill(base: &Path, record: &Value, ground: &Value, snapshots: usize) -> Result<()> {
    let name = record["name"].as_str().unwrap_or_default();
    let folder = base.join("boxes").join(name);
    private(&folder)?;
    private(&folder.join("refs"))?;
    write(&folder.join("box.json"), record)?;
    fs::write(folder.join("lock"), "")?;
    let mut top = ground.clone();
    for number in 0..snapshots {
        top = add_layer(base, &top, 0)?;
        let named = json!({"layer": top["id"], "created": top["created"], "message": null});
        write(&folder.join(format!("refs/s{number}")), &named)?;
    }
    write(&folder.join("head"), &json!({"head": top["id"], "current": top["id"]}))
}

/// A layer with so many files that nothing names.
pub(crate) fn dead_layers(sandbox: &Sandbox, count: usize, files: usize) -> Result<()> {
    let base = &sandbox.base_dir;
    let head: Value = serde_json::from_slice(&fs::read(base.join("boxes/first/head"))?)?;
    let ground = layer(base, &head["head"])?;
    for _ in 0..count {
        add_layer(base, &ground, files)?;
    }
    Ok(())
}

fn add_layer(base: &Path, parent: &Value, files: usize) -> Result<Value> {
    let id = LayerId::random()?.to_string();
    let mut layer = parent.clone();
    layer["parent"] = parent["id"].clone();
    layer["depth"] = json!(parent["depth"].as_u64().unwrap_or_default() + 1);
    layer["id"] = json!(id);
    if let Some(chain) = layer["mount"].as_array_mut() {
        chain.push(json!(id));
    }
    layer["argv"] = json!(["sh", "-c", "make and install something"]);
    layer["exit"] = json!(0);
    layer["files"] = json!(files);
    let folder = base.join("layers").join(&id);
    private(&folder)?;
    private(&folder.join("fs"))?;
    for file in 0..files {
        fs::write(folder.join(format!("fs/file{file}")), "of a layer that nothing names\n")?;
    }
    write(&folder.join("layer.json"), &layer)?;
    Ok(layer)
}

fn private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    Ok(fs::DirBuilder::new().mode(0o700).create(folder)?)
}

fn write(file: &Path, value: &Value) -> Result<()> {
    Ok(fs::write(file, format!("{value}\n"))?)
}
