// SPDX-License-Identifier: GPL-2.0

//! Several inputs made one: each guest has measured a part of the benchmark.

use serde_json::Map;
use serde_json::Value;

use crate::Error;
use crate::Result;

/// The member that may differ: midnight comes while a benchmark runs.
const DATE: &str = "date";

/// The member that is the same list in all of them, and not a part of one.
const DRIVERS: &str = "drivers";

/// Merges what guests have written, in this order: lists are joined, what only one has is taken from
/// it, and all else has to be the same in all of them. Gives the text of one `benchmark.json`.
pub fn merge(texts: &[String]) -> Result<String> {
    let mut merged = Map::new();
    for text in texts {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::new(e.to_string()))?;
        let Value::Object(members) = value else {
            return Err(Error::new("an input is no object"));
        };
        for (name, member) in members {
            match (merged.get_mut(&name), member) {
                (None | Some(Value::Null), member) => {
                    merged.insert(name, member);
                }
                (Some(_), Value::Null) => (),
                (Some(Value::Array(all)), Value::Array(more)) if name != DRIVERS => {
                    all.extend(more);
                }
                (Some(same), member) if *same == member || name == DATE => (),
                (Some(_), _) => {
                    return Err(Error::new(format!(
                        "'{name}' is not the same in all inputs"
                    )));
                }
            }
        }
    }
    let mut text = serde_json::to_string_pretty(&merged).map_err(|e| Error::new(e.to_string()))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn merged(inputs: &[Value]) -> Result<Value> {
        let texts: Vec<String> = inputs.iter().map(Value::to_string).collect();
        merge(&texts).map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    #[test]
    fn parts() {
        let inputs = [
            json!({"date": "d", "rounds": 5, "drivers": ["c"], "cases": [1], "resets": null}),
            json!({"date": "e", "rounds": 5, "drivers": ["c"], "cases": [2, 3], "resets": {"n": 1}}),
            json!({"date": "e", "rounds": 5, "drivers": ["c"], "cases": [], "resets": null}),
        ];
        let expected = json!({"date": "d", "rounds": 5, "drivers": ["c"], "cases": [1, 2, 3], "resets": {"n": 1}});
        assert_eq!(merged(&inputs).expect("one benchmark"), expected);
    }

    #[test]
    fn what_does_not_go_together() {
        assert!(merged(&[json!({"rounds": 5}), json!({"rounds": 4})]).is_err());
        assert!(merged(&[json!({"drivers": ["c"]}), json!({"drivers": ["d"]})]).is_err());
        assert!(merged(&[json!([])]).is_err());
        assert!(merge(&["nonsense".to_owned()]).is_err());
    }
}
