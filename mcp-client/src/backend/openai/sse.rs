//! Server-sent events, as the [HTML standard][sse] has them, without what browsers need to connect
//! again (`id`, `retry`).
//!
//! [sse]: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

/// Bounds a line, and the data of an event. Servers send some hundred bytes for each token, some
/// thousand when log probabilities are asked for.
pub(super) const MAX_EVENT_BYTES: usize = 64 * 1024;

/// An event that has data; others have no effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Event {
    /// Empty when it was not said.
    pub(super) name: Vec<u8>,
    pub(super) data: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent an event of more than {MAX_EVENT_BYTES} bytes")]
pub(super) struct EventTooLong;

/// Takes a stream apart, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: Event,
    /// Whether there is a `data` line, be it an empty one.
    has_data: bool,
    /// A line ended with a carriage return: a line feed that follows belongs to it.
    is_after_cr: bool,
    /// The first line may begin with a byte order mark.
    is_after_start: bool,
}

impl Parser {
    /// The next event of `bytes`, which is left with what follows. None: more has to come.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, EventTooLong> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.is_after_cr) && *first == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if part.len() > MAX_EVENT_BYTES - self.line.len() {
                return Err(EventTooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else {
                *bytes = &[];
                return Ok(None);
            };
            self.is_after_cr = bytes[end] == b'\r';
            *bytes = &bytes[end + 1..];
            if let Some(event) = self.end_line()? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn end_line(&mut self) -> Result<Option<Event>, EventTooLong> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.is_after_start, true);
        let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line);
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let (field, value) = match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                let data = &mut self.event.data;
                if value.len() + 1 > MAX_EVENT_BYTES - data.len() {
                    return Err(EventTooLong);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    data.push(b'\n');
                }
                data.extend_from_slice(value);
            }
            b"event" => self.event.name = value.to_vec(),
            // A comment, or a field without effect.
            _ => {}
        }
        // Its memory is used again.
        self.line = line;
        self.line.clear();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECES: &[&[u8]] =
        &[b"data", b"event", b":", b" ", b"\r", b"\n", b"\n\n", b"\xef\xbb\xbf", b"\xff", b"a"];

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Event>, EventTooLong> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for mut piece in pieces {
            while let Some(event) = parser.next(&mut piece)? {
                events.push(event);
            }
            assert!(piece.is_empty());
        }
        Ok(events)
    }

    #[test]
    fn fields_comments_and_line_ends() {
        let stream = "\u{feff}: a comment\n\ndata: one\n\ndata:two\r\ndata\r\ndata:  three\r\n\r\n\
                      event: error\rid: 7\rdata: four\r\revent: lost\n\ndata:\n\ndata: not ended\n";
        let expected =
            [event("", "one"), event("", "two\n\n three"), event("error", "four"), event("", "")];
        assert_eq!(parse([stream.as_bytes()]).unwrap(), expected);
        let bytes: Vec<_> = stream.bytes().map(|byte| [byte]).collect();
        assert_eq!(parse(bytes.iter().map(|byte| &byte[..])).unwrap(), expected);
        for cut in 0..stream.len() {
            let (start, end) = stream.as_bytes().split_at(cut);
            assert_eq!(parse([start, end]).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn endless_lines_and_events_are_refused() {
        let long = vec![b'x'; MAX_EVENT_BYTES + 1];
        assert_eq!(parse([&long[..]]), Err(EventTooLong));
        assert_eq!(parse(long.chunks(1000)), Err(EventTooLong));
        assert_eq!(parse(long.chunks(1000).map(|_| &b"data: x\ndata: "[..])), Ok(vec![]));
        let line = [b"data: ", &long[..1000], b"\n"].concat();
        assert_eq!(parse(std::iter::repeat_n(&line[..], 100)), Err(EventTooLong));
        let comment = [b": ", &long[..1000], b"\n"].concat();
        assert_eq!(parse(std::iter::repeat_n(&comment[..], 100)), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            stream in proptest::collection::vec(
                proptest::sample::select(PIECES),
                0..60,
            ),
        ) {
            let whole = stream.concat();
            prop_assert_eq!(parse([&whole[..]]), parse(stream.iter().copied()));
        }
    }
}
