//! Whether what is sent and answered is what an OpenAPI document tells.

use serde_json::Value;

/// What a reference leads to, or the thing itself.
pub(crate) fn follow<'a>(document: &'a Value, thing: &'a Value) -> &'a Value {
    let Some(reference) = thing["$ref"].as_str() else {
        return thing;
    };
    let place = reference
        .strip_prefix('#')
        .and_then(|at| document.pointer(at));
    place.unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name} is no type"),
    }
}

/// Whether a value has the shape that a schema tells; why not.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = follow(document, schema);
    let fail = |what: &str| Err(format!("{value} {what} {schema}"));
    if let Some(ways) = schema["anyOf"].as_array() {
        let fits = |way| check(document, way, value).is_ok();
        return if ways.iter().any(fits) {
            Ok(())
        } else {
            fail("is none of")
        };
    }
    let is_right = match &schema["type"] {
        Value::String(name) => is_of_type(value, name),
        Value::Array(names) => names
            .iter()
            .any(|name| is_of_type(value, name.as_str().unwrap_or_default())),
        _ => true,
    };
    let one_of = schema["enum"].as_array();
    let is_one = one_of.is_none_or(|values| values.contains(value));
    let is_it = schema.get("const").is_none_or(|only| only == value);
    if !is_right || !is_one || !is_it {
        return fail("is not of");
    }
    if let (Some(text), Some(least)) = (value.as_str(), schema["minLength"].as_u64())
        && (text.len() as u64) < least
    {
        return fail("is shorter than");
    }
    if value.is_object() {
        for key in schema["required"].as_array().into_iter().flatten() {
            if value.get(key.as_str().unwrap_or_default()).is_none() {
                return fail(&format!("lacks {key} of"));
            }
        }
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(key) {
            check(document, inner, value)?;
        }
    }
    for entry in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], entry)?;
    }
    Ok(())
}

/// The JSON that a request or an answer has.
pub(crate) fn content<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    &follow(document, part)["content"]["application/json"]
}

/// What a verb answers with a status.
pub(crate) fn response<'a>(document: &'a Value, operation: &'a Value, status: u16) -> &'a Value {
    let found = operation["responses"].get(status.to_string());
    let found = found.unwrap_or_else(|| panic!("{status} is not described: {operation}"));
    content(document, found)
}
