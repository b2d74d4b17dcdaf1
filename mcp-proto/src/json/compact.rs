use super::{JsonError, MAX_JSON_DEPTH};

/// JSON text without the white space between its parts, everything else as it was written.
/// `json` is well-formed.
pub(super) fn compact(json: &str) -> Result<String, JsonError> {
    let mut to = String::with_capacity(json.len());
    let mut depth = 0;
    let mut rest = json;
    while let Some(at) = rest.find(['"', '{', '[', '}', ']', ' ', '\t', '\r', '\n']) {
        to.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes()[0] {
            b'"' => string_len(rest),
            b'{' | b'[' => {
                depth += 1;
                1
            }
            b'}' | b']' => {
                depth -= 1;
                1
            }
            _ => {
                rest = &rest[1..];
                continue;
            }
        };
        if depth > MAX_JSON_DEPTH {
            return Err(JsonError::TooDeep { max: MAX_JSON_DEPTH });
        }
        to.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    to.push_str(rest);
    Ok(to)
}

/// The length of the string that `json` begins with, its quotes included.
fn string_len(json: &str) -> usize {
    let mut is_escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(json.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_and_everything_else_stays() {
        let text = "{ \"b\" : [ 1.50e+3 ,\t-0 , 12345678901234567890.1 ] ,\n \"a b\\\" \\\\\" : \" x\\u00e9é \" , \"b\" : null }";
        let expected = "{\"b\":[1.50e+3,-0,12345678901234567890.1],\"a b\\\" \\\\\":\" x\\u00e9é \",\"b\":null}";
        assert_eq!(compact(text).unwrap(), expected);
        assert_eq!(compact(expected).unwrap(), expected);
        assert_eq!(compact(" 7 ").unwrap(), "7");
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(compact(&nested(MAX_JSON_DEPTH)).is_ok());
        let error = compact(&nested(MAX_JSON_DEPTH + 1)).unwrap_err();
        assert_eq!(error.to_string(), "field \"payload\" is nested deeper than 128");
    }
}
