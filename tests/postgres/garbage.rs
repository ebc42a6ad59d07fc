//! Case 167: whatever bytes come, the parsers give a message or a typed error.

use frazil::postgres::pgoutput::{Field, Message, OldTuple, Tuple, fields, parse, parse_streamed};
use frazil::postgres::stream::{missing, next_frame};
use proptest::prelude::*;

const TAGS: &[u8] = b"BCORYIUDTMSEcAbPKrp";

fn walk(bytes: &[u8], message: &Message) {
    let tuples: Vec<Tuple> = match message {
        Message::Insert { new, .. } => vec![*new],
        Message::Update { old, new, .. } => old.map(|(_, t)| t).into_iter().chain([*new]).collect(),
        Message::Delete { old, .. } => vec![old.1],
        _ => vec![],
    };
    for tuple in tuples {
        let count = fields(bytes, tuple, bytes.len()).unwrap().count();
        assert!(count <= usize::from(tuple.columns));
    }
    if let Message::LogicalMessage { prefix, content, .. } = message {
        assert!(bytes.get(prefix.clone()).is_some() && bytes.get(content.clone()).is_some());
    }
}

proptest! {
    // cases: 167 holds
    #[test]
    fn pgoutput_survives(
        tag in 0..TAGS.len(),
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let bytes = [&[TAGS[tag]][..], &rest].concat();
        let streamed = parse_streamed(&bytes, 0, bytes.len()).map(|m| m.1);
        for parsed in [parse(&bytes, 0, bytes.len()), streamed] {
            match parsed {
                Ok(message) => walk(&bytes, &message),
                Err(error) => prop_assert_eq!(error.code(), "BAD_MESSAGE"),
            }
        }
    }

    #[test]
    fn likely_bytes_survive(tag in 0..TAGS.len(), rest in proptest::collection::vec(
        prop_oneof![Just(0u8), Just(1), Just(2), Just(b'N'), Just(b'K'), Just(b'O'), Just(b'n'),
                    Just(b't'), Just(b'b'), Just(b'u'), Just(255), any::<u8>()], 0..80)) {
        let bytes = [&[TAGS[tag]][..], &rest].concat();
        if let Ok(message) = parse(&bytes, 0, bytes.len()) {
            walk(&bytes, &message);
        }
    }

    // cases: 167 holds
    #[test]
    fn frames_survive(bytes in proptest::collection::vec(
        prop_oneof![Just(b'd'), Just(b'w'), Just(b'k'), Just(0u8), Just(9), Just(34), any::<u8>()],
        0..200,
    )) {
        let mut pos = 0;
        while let Ok(Some(_)) = next_frame(&bytes, &mut pos, 1_000) {
            prop_assert!(pos <= bytes.len());
        }
        let _ = missing(&bytes, pos);
    }
}

#[test]
fn an_update_with_an_old_key() {
    let bytes = b"xxU\0\0\0\x07K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012u";
    let message = parse(bytes, 2, bytes.len()).unwrap();
    let Message::Update { oid: 7, old: Some((OldTuple::Key, old)), new } = message else {
        panic!()
    };
    let all =
        |tuple| fields(bytes, tuple, bytes.len()).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(all(old), [Field::Text(b"1"), Field::Null]);
    assert_eq!(all(new), [Field::Text(b"2"), Field::UnchangedToast]);
}

/// A tuple that ends before or behind its message would be read on into the next one.
// cases: 167 holds
#[test]
fn a_message_ends_where_its_frame_does() {
    let whole: [&[u8]; 8] = [
        b"I\0\0\0\x01N\0\x02t\0\0\0\x02abn",
        b"U\0\0\0\x01N\0\x01b\0\0\0\x01a",
        b"U\0\0\0\x01O\0\x01uN\0\x01b\0\0\0\x01a",
        b"D\0\0\0\x01K\0\x01t\0\0\0\x03abc",
        b"T\0\0\0\x01\0\0\0\0\x07",
        b"B\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x03",
        b"M\x01\0\0\0\0\0\0\0\x01p\0\0\0\0\x02ab",
        b"R\0\0\0\x01a\0b\0d\0\x01\x01c\0\0\0\0\x17\xff\xff\xff\xff",
    ];
    for message in whole {
        parse(message, 0, message.len()).unwrap();
        // What follows in the buffer belongs to another message.
        let buf = [message, b"dddddddddddd"].concat();
        let ends = (0..buf.len()).filter(|&end| end != message.len());
        for end in ends {
            let error = parse(&buf, 0, end).unwrap_err();
            assert_eq!(error.code(), "BAD_MESSAGE", "{:?} to {end}", char::from(message[0]));
        }
    }
}

// cases: 167 holds
#[test]
fn counts_and_lengths_are_not_believed() {
    for bytes in [
        &b"I\0\0\0\x01N\xff\xff"[..],
        b"T\xff\xff\xff\xff\0",
        b"U\0\0\0\x01K\0\x01t\xff\xff\xff\xffx",
        b"R\0\0\0\x01a\0b\0d\xff\xff",
        b"M\x01\0\0\0\0\0\0\0\x01p\0\x7f\xff\xff\xff",
        b"R\0\0\0\x01\xff\0b\0d\0\0",
        b"",
        b"?",
    ] {
        assert_eq!(parse(bytes, 0, bytes.len()).unwrap_err().code(), "BAD_MESSAGE", "{bytes:?}");
    }
    assert_eq!(parse(b"C", 0, 5).unwrap_err().code(), "BAD_MESSAGE");
}
