//! Values between Python and automerge, by way of a tree that needs no GIL.

use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ObjId, ObjType, ReadDoc, ScalarValue};
use automerge::{ScalarValueRef, ValueRef, ROOT};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// Nested containers use the stack, here and in Python; a client can nest them without end.
const MOST_LEVELS: usize = 256;

#[derive(Clone, Debug)]
pub enum Tree {
    Map(Vec<(String, Tree)>),
    List(Vec<Tree>),
    Text(String),
    Bytes(Vec<u8>),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Null,
}

/// What a value takes beside its text or bytes, roughly, when it is a Python object.
const VALUE_BYTES: usize = 64;

/// Why a value can't be given.
#[derive(Debug)]
pub enum Unshown {
    /// Containers are nested deeper than `MOST_LEVELS`.
    TooDeep,
    TooLarge,
}

impl From<Unshown> for PyErr {
    fn from(why: Unshown) -> Self {
        PyValueError::new_err(match why {
            Unshown::TooDeep => format!("the value is nested deeper than {MOST_LEVELS} levels"),
            Unshown::TooLarge => "the value is larger than is allowed here".to_owned(),
        })
    }
}

/// The current value of a document, if it takes at most so many bytes.
pub fn read(document: &Automerge, most_bytes: usize) -> Result<Tree, Unshown> {
    let mut reading = Reading {
        document,
        left_bytes: most_bytes,
    };
    reading.object(&ROOT, ObjType::Map, 0)
}

struct Reading<'a> {
    document: &'a Automerge,
    left_bytes: usize,
}

impl Reading<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), Unshown> {
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.ok_or(Unshown::TooLarge)?;
        Ok(())
    }

    fn object(&mut self, object: &ObjId, kind: ObjType, level: usize) -> Result<Tree, Unshown> {
        if level >= MOST_LEVELS {
            return Err(Unshown::TooDeep);
        }
        self.take(VALUE_BYTES)?;
        let document = self.document;
        match kind {
            ObjType::Map | ObjType::Table => document
                .map_range(object, ..)
                .map(|item| {
                    self.take(item.key.len())?;
                    let value = self.value(&item.value, || item.id(), level)?;
                    Ok((item.key.into_owned(), value))
                })
                .collect::<Result<_, _>>()
                .map(Tree::Map),
            ObjType::List => document
                .list_range(object, ..)
                .map(|item| self.value(&item.value, || item.id(), level))
                .collect::<Result<_, _>>()
                .map(Tree::List),
            ObjType::Text => {
                let text = document.text(object).unwrap_or_default();
                self.take(text.len())?;
                Ok(Tree::Text(text))
            }
        }
    }

    fn value(
        &mut self,
        value: &ValueRef<'_>,
        id: impl Fn() -> ObjId,
        level: usize,
    ) -> Result<Tree, Unshown> {
        match value {
            ValueRef::Object(kind) => self.object(&id(), *kind, level + 1),
            ValueRef::Scalar(scalar) => {
                self.take(VALUE_BYTES + scalar_bytes(scalar))?;
                Ok(read_scalar(scalar))
            }
        }
    }
}

fn scalar_bytes(scalar: &ScalarValueRef<'_>) -> usize {
    match scalar {
        ScalarValueRef::Bytes(bytes) => bytes.len(),
        ScalarValueRef::Str(text) => text.len(),
        _ => 0,
    }
}

fn read_scalar(scalar: &ScalarValueRef<'_>) -> Tree {
    match scalar {
        ScalarValueRef::Bytes(bytes) => Tree::Bytes(bytes.to_vec()),
        ScalarValueRef::Str(text) => Tree::Text(text.to_string()),
        ScalarValueRef::Int(value) => Tree::Int(*value),
        ScalarValueRef::Uint(value) => Tree::Uint(*value),
        ScalarValueRef::F64(value) => Tree::Float(*value),
        ScalarValueRef::Counter(value) => Tree::Int(*value),
        ScalarValueRef::Timestamp(value) => Tree::Timestamp(*value),
        ScalarValueRef::Boolean(value) => Tree::Bool(*value),
        ScalarValueRef::Unknown { bytes, .. } => Tree::Bytes(bytes.to_vec()),
        ScalarValueRef::Null => Tree::Null,
    }
}

pub fn to_python<'py>(py: Python<'py>, tree: &Tree) -> PyResult<Bound<'py, PyAny>> {
    Ok(match tree {
        Tree::Map(items) => {
            let dict = PyDict::new(py);
            for (key, value) in items {
                dict.set_item(key, to_python(py, value)?)?;
            }
            dict.into_any()
        }
        Tree::List(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Tree::Text(text) => text.into_pyobject(py)?.into_any(),
        Tree::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Tree::Int(value) => value.into_pyobject(py)?.into_any(),
        Tree::Uint(value) => value.into_pyobject(py)?.into_any(),
        Tree::Float(value) => value.into_pyobject(py)?.into_any(),
        Tree::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Tree::Timestamp(value) => timestamp_to_python(py, *value)?,
        Tree::Null => py.None().into_bound(py),
    })
}

/// An aware datetime; an int if Python's datetime can't hold it.
fn timestamp_to_python(py: Python<'_>, milliseconds: i64) -> PyResult<Bound<'_, PyAny>> {
    let sum = epoch(py)?.add(timedelta(py, milliseconds)?);
    match sum {
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => {
            Ok(milliseconds.into_pyobject(py)?.into_any())
        }
        result => result,
    }
}

fn timedelta(py: Python<'_>, milliseconds: i64) -> PyResult<Bound<'_, PyAny>> {
    let arguments = PyDict::new(py);
    arguments.set_item(
        "days",
        (milliseconds / 86_400_000).clamp(-999_999_999, 999_999_999),
    )?;
    arguments.set_item("milliseconds", milliseconds % 86_400_000)?;
    py.import("datetime")?
        .getattr("timedelta")?
        .call((), Some(&arguments))
}

fn epoch(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let datetime = py.import("datetime")?;
    let utc = datetime.getattr("timezone")?.getattr("utc")?;
    let arguments = PyDict::new(py);
    arguments.set_item("tzinfo", utc)?;
    datetime
        .getattr("datetime")?
        .call((1970, 1, 1), Some(&arguments))
}

/// The path names the place in error messages: `$.rows[3].name`.
pub fn from_python(value: &Bound<'_, PyAny>, path: &str, level: usize) -> PyResult<Tree> {
    if level >= MOST_LEVELS {
        let text = format!("{path}: nested deeper than {MOST_LEVELS} levels");
        return Err(PyValueError::new_err(text));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let mut items = Vec::with_capacity(dict.len());
        for (key, item) in dict.iter() {
            let key = key
                .cast::<PyString>()
                .map_err(|_| PyTypeError::new_err(format!("{path}: a key is not a str")))?;
            let key = text_of(key, path)?;
            let item = from_python(&item, &format!("{path}.{key}"), level + 1)?;
            items.push((key, item));
        }
        return Ok(Tree::Map(items));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value
            .try_iter()?
            .enumerate()
            .map(|(index, item)| from_python(&item?, &format!("{path}[{index}]"), level + 1));
        return items.collect::<PyResult<_>>().map(Tree::List);
    }
    scalar_from_python(value, path)
}

fn scalar_from_python(value: &Bound<'_, PyAny>, path: &str) -> PyResult<Tree> {
    if value.is_none() {
        return Ok(Tree::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return text_of(text, path).map(Tree::Text);
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Tree::Bool(truth.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return value
            .extract::<i64>()
            .map(Tree::Int)
            .or_else(|_| value.extract::<u64>().map(Tree::Uint))
            .map_err(|_| PyValueError::new_err(format!("{path}: an int beyond 64 bits")));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Tree::Float(number.value()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Tree::Bytes(bytes.as_bytes().to_vec()));
    }
    let datetime = value.py().import("datetime")?.getattr("datetime")?;
    if value.is_instance(&datetime)? {
        return timestamp_from_python(value, path).map(Tree::Timestamp);
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "{path}: a {kind} has no counterpart in automerge"
    )))
}

fn text_of(text: &Bound<'_, PyString>, path: &str) -> PyResult<String> {
    text.to_cow()
        .map(|text| text.into_owned())
        .map_err(|_| PyValueError::new_err(format!("{path}: text with lone surrogates")))
}

fn timestamp_from_python(value: &Bound<'_, PyAny>, path: &str) -> PyResult<i64> {
    if value.call_method0("utcoffset")?.is_none() {
        return Err(PyValueError::new_err(format!(
            "{path}: a datetime without a time zone"
        )));
    }
    let difference = value.sub(epoch(value.py())?)?;
    difference
        .floor_div(timedelta(value.py(), 1)?)?
        .extract::<i64>()
}

impl Tree {
    /// The scalar that it is; None for a container.
    pub fn scalar(&self) -> Option<ScalarValue> {
        Some(match self {
            Self::Map(_) | Self::List(_) => return None,
            Self::Text(text) => ScalarValue::Str(text.as_str().into()),
            Self::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
            Self::Int(value) => ScalarValue::Int(*value),
            Self::Uint(value) => ScalarValue::Uint(*value),
            Self::Float(value) => ScalarValue::F64(*value),
            Self::Bool(value) => ScalarValue::Boolean(*value),
            Self::Timestamp(value) => ScalarValue::Timestamp(*value),
            Self::Null => ScalarValue::Null,
        })
    }
}

/// Write a map's items into an object; strings become text objects.
pub fn write_map(
    target: &mut impl Transactable,
    object: &ObjId,
    items: &[(String, Tree)],
) -> Result<(), AutomergeError> {
    for (key, value) in items {
        match value {
            Tree::Map(inner) => {
                let made = target.put_object(object, key.as_str(), ObjType::Map)?;
                write_map(target, &made, inner)?;
            }
            Tree::List(inner) => {
                let made = target.put_object(object, key.as_str(), ObjType::List)?;
                write_list(target, &made, inner)?;
            }
            Tree::Text(text) => {
                let made = target.put_object(object, key.as_str(), ObjType::Text)?;
                target.splice_text(&made, 0, 0, text)?;
            }
            other => target.put(
                object,
                key.as_str(),
                other.scalar().unwrap_or(ScalarValue::Null),
            )?,
        }
    }
    Ok(())
}

fn write_list(
    target: &mut impl Transactable,
    object: &ObjId,
    items: &[Tree],
) -> Result<(), AutomergeError> {
    for (index, value) in items.iter().enumerate() {
        match value {
            Tree::Map(inner) => {
                let made = target.insert_object(object, index, ObjType::Map)?;
                write_map(target, &made, inner)?;
            }
            Tree::List(inner) => {
                let made = target.insert_object(object, index, ObjType::List)?;
                write_list(target, &made, inner)?;
            }
            Tree::Text(text) => {
                let made = target.insert_object(object, index, ObjType::Text)?;
                target.splice_text(&made, 0, 0, text)?;
            }
            other => target.insert(object, index, other.scalar().unwrap_or(ScalarValue::Null))?,
        }
    }
    Ok(())
}
