//! Edits as data, and documents as plain JSON: what crosses the pipe to the Python side.
//!
//! The same as tests/js/edits.mjs, as far as the scenarios for samod need it.

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutoSerde, Automerge, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, Value};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::Failure;

type Path = Vec<Json>;

/// `["set", path, value]`, `["del", path]`, `["push", path, ...values]`,
/// `["splice", path, index, delete, text]`
pub fn apply_all(doc: &mut Automerge, edits: &[Json]) -> Result<(), Failure> {
    transact(doc, |tx| {
        edits.iter().try_for_each(|edit| apply_edit(tx, edit))
    })
}

/// Appends a character to the text at `path`.
pub fn append(doc: &mut Automerge, path: &Path, character: char) -> Result<(), Failure> {
    transact(doc, |tx| {
        let text = object_at(tx, path)?;
        let end = tx.length(&text);
        let character = character.to_string();
        Ok(tx.splice_text(&text, end, 0, &character)?)
    })
}

/// A new document with the entries of a JSON object; strings become texts, as in JavaScript.
pub fn document_of(value: &Json) -> Result<Automerge, Failure> {
    let mut doc = Automerge::new();
    let Json::Object(entries) = value else {
        return Err(format!("a document is an object, not {value}").into());
    };
    if !entries.is_empty() {
        transact(&mut doc, |tx| {
            entries
                .iter()
                .try_for_each(|(key, value)| put(tx, &ROOT, Prop::Map(key.clone()), value, false))
        })?;
    }
    Ok(doc)
}

pub fn plain(doc: &Automerge) -> Result<Json, Failure> {
    Ok(serde_json::to_value(AutoSerde::from(doc))?)
}

/// What a document is waited for; all that is named must hold.
#[derive(Deserialize)]
pub struct Wanted {
    #[serde(default)]
    path: Path,
    equals: Option<Json>,
    length: Option<usize>,
    contains: Option<Vec<Json>>,
    heads: Option<Vec<String>>,
}

impl Wanted {
    pub fn is_met(&self, doc: &Automerge) -> bool {
        if let Some(heads) = &self.heads {
            let mut heads = heads.clone();
            heads.sort();
            if hex(doc.get_heads()) != heads {
                return false;
            }
        }
        if self.equals.is_none() && self.length.is_none() && self.contains.is_none() {
            return true;
        }
        let Ok(value) = plain(doc) else { return false };
        let here = self.path.iter().try_fold(&value, |node, key| match key {
            Json::String(key) => node.get(key),
            _ => node.get(usize::try_from(key.as_u64()?).ok()?),
        });
        let items = here.and_then(Json::as_array);
        self.equals.as_ref().is_none_or(|it| here == Some(it))
            && self
                .length
                .is_none_or(|length| items.is_some_and(|items| items.len() == length))
            && self.contains.as_ref().is_none_or(|wanted| {
                items.is_some_and(|items| wanted.iter().all(|it| items.contains(it)))
            })
    }
}

/// Heads as Python has them: sorted, 64 digits each.
pub fn hex(heads: Vec<ChangeHash>) -> Vec<String> {
    let mut heads: Vec<String> = heads.iter().map(ChangeHash::to_string).collect();
    heads.sort();
    heads
}

fn transact(
    doc: &mut Automerge,
    change: impl FnOnce(&mut Transaction<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match doc.transact(change) {
        Ok(_) => Ok(()),
        Err(failed) => Err(failed.error),
    }
}

fn apply_edit(tx: &mut Transaction<'_>, edit: &Json) -> Result<(), Failure> {
    let parts = edit.as_array().map_or(&[][..], Vec::as_slice);
    let [Json::String(kind), path, rest @ ..] = parts else {
        return Err(format!("no edit: {edit}").into());
    };
    let path: Path = serde_json::from_value(path.clone())?;
    match (kind.as_str(), rest) {
        ("set", [value]) => {
            let (parent, key) = parent_of(tx, &path)?;
            put(tx, &parent, key, value, false)
        }
        ("del", []) => {
            let (parent, key) = parent_of(tx, &path)?;
            Ok(tx.delete(&parent, key)?)
        }
        ("push", values) => {
            let list = object_at(tx, &path)?;
            values.iter().try_for_each(|value| {
                let end = tx.length(&list);
                put(tx, &list, Prop::Seq(end), value, true)
            })
        }
        ("splice", [index, delete, Json::String(text)]) => {
            let object = object_at(tx, &path)?;
            let index = serde_json::from_value(index.clone())?;
            let delete = serde_json::from_value(delete.clone())?;
            Ok(tx.splice_text(&object, index, delete, text)?)
        }
        _ => Err(format!("unknown edit {edit}").into()),
    }
}

/// Puts a JSON value at a place; into a list before that place if `inserted`.
fn put(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    key: Prop,
    value: &Json,
    inserted: bool,
) -> Result<(), Failure> {
    let kind = match value {
        Json::Object(_) => ObjType::Map,
        Json::Array(_) => ObjType::List,
        Json::String(_) => ObjType::Text,
        _ => {
            let scalar = scalar(value)?;
            match key {
                Prop::Seq(index) if inserted => tx.insert(parent, index, scalar)?,
                key => tx.put(parent, key, scalar)?,
            }
            return Ok(());
        }
    };
    let object = match key {
        Prop::Seq(index) if inserted => tx.insert_object(parent, index, kind)?,
        key => tx.put_object(parent, key, kind)?,
    };
    match value {
        Json::Object(entries) => entries
            .iter()
            .try_for_each(|(key, value)| put(tx, &object, Prop::Map(key.clone()), value, false)),
        Json::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| put(tx, &object, Prop::Seq(index), value, true)),
        Json::String(text) => Ok(tx.splice_text(&object, 0, 0, text)?),
        _ => Ok(()),
    }
}

fn scalar(value: &Json) -> Result<automerge::ScalarValue, Failure> {
    match value {
        Json::Null => Ok(automerge::ScalarValue::Null),
        Json::Bool(value) => Ok((*value).into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(whole.into()),
            (None, Some(real)) => Ok(real.into()),
            (None, None) => Err(format!("no number of automerge's: {number}").into()),
        },
        _ => Err(format!("no scalar: {value}").into()),
    }
}

fn parent_of(tx: &Transaction<'_>, path: &Path) -> Result<(ObjId, Prop), Failure> {
    let (last, above) = path.split_last().ok_or("an edit needs a path")?;
    Ok((object_at(tx, above)?, prop(last)?))
}

fn object_at(tx: &Transaction<'_>, path: &[Json]) -> Result<ObjId, Failure> {
    path.iter()
        .try_fold(ROOT, |parent, key| match tx.get(&parent, prop(key)?)? {
            Some((Value::Object(_), object)) => Ok(object),
            _ => Err(format!("no object at {path:?}").into()),
        })
}

fn prop(key: &Json) -> Result<Prop, Failure> {
    match key {
        Json::String(key) => Ok(Prop::Map(key.clone())),
        _ => Ok(Prop::Seq(serde_json::from_value(key.clone())?)),
    }
}
