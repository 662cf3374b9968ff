use proptest::prelude::*;

use super::*;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// What every byte was last said to be, since the last gap or change of timeline.
#[derive(Default)]
struct Model {
    timeline: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Model {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn append(&mut self, timeline: u32, start: u64, bytes: &[u8]) {
        if timeline != self.timeline || start > self.end() || start < self.start {
            (self.timeline, self.start) = (timeline, start);
            self.bytes.clear();
        }
        self.bytes
            .truncate(usize::try_from(start - self.start).unwrap());
        self.bytes.extend_from_slice(bytes);
    }

    fn slice(&self, from: u64, end: u64) -> &[u8] {
        let index = |position: u64| usize::try_from(position - self.start).unwrap();
        &self.bytes[index(from)..index(end)]
    }
}

fn check(tail: &Tail, model: &Model, capacity: usize, at: (f64, f64)) {
    let held: usize = tail.pieces.iter().map(|piece| piece.bytes.len()).sum();
    assert_eq!(held, tail.length);
    assert_eq!(held + tail.pieces.len() * PIECE_OVERHEAD, tail.memory);
    assert!(tail.memory <= capacity);
    assert!(
        tail.pieces
            .iter()
            .all(|piece| piece.bytes.len() <= MAX_PIECE)
    );
    let first = model.end() - held as u64;
    let place = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "any position will do"
        )]
        let offset = (part * model.bytes.len() as f64) as u64;
        model.start + offset
    };
    let (from, end) = (place(at.0.min(at.1)), place(at.0.max(at.1)));
    if from == end {
        return;
    }
    let found = tail.read(timeline(model.timeline), Lsn(from)..Lsn(end));
    assert_eq!(found.is_some(), from >= first, "{from} of {first}");
    if let Some(pieces) = found {
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        assert!(pieces.concat() == model.slice(from, end));
    }
    let past = tail.read(timeline(model.timeline), Lsn(from)..Lsn(model.end() + 1));
    assert!(past.is_none());
    let other = tail.read(timeline(model.timeline + 1), Lsn(from)..Lsn(end));
    assert!(other.is_none());
}

#[derive(Clone, Debug)]
enum Step {
    /// Goes on, with pieces of these lengths, of which so many bytes are not taken.
    Append(Vec<usize>, usize),
    /// Goes back so far.
    Back(u64),
    /// Leaves a gap.
    Skip(u64),
    Timeline,
    Capacity(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 1usize..300, 1 => LARGE - 2..LARGE + 2, 1 => 0usize..200_000];
    prop_oneof![
        12 => (prop::collection::vec(length, 1..12), 0usize..100)
            .prop_map(|(lengths, rest)| Step::Append(lengths, rest)),
        2 => (0u64..300_000).prop_map(Step::Back),
        1 => (1u64..300_000).prop_map(Step::Skip),
        1 => Just(Step::Timeline),
        1 => (1usize..1_000_000).prop_map(Step::Capacity),
    ]
}

#[test]
fn a_piece_that_was_cut_to_a_small_one_is_not_joined_to_one_that_is_too_long() {
    let mut tail = Tail::new(1 << 20);
    let mut append = |start: u64, length: usize| {
        let data = [Bytes::from(vec![1; length])];
        let end = Lsn(start + length as u64);
        tail.append(timeline(1), Lsn(start), end, &data);
        assert!(tail.pieces.iter().all(|p| p.bytes.len() <= MAX_PIECE));
        assert_eq!(tail.end, end);
    };
    append(0x1000, 2 * LARGE - 4);
    let cut = 0x1000 + LARGE as u64 - 1;
    append(cut, 30);
    append(cut + 30, LARGE - 2);
    assert_eq!(tail.length, 2 * LARGE + 27);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_what_was_last_appended(
        steps in prop::collection::vec((any_step(), 0.0..1.0, 0.0..=1.0), 1..60), seed: u64,
        through_another: bool,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut capacity = 300_000;
        let mut tail = Tail::new(capacity);
        let mut model = Model { timeline: 1, start: 1 << 30, bytes: Vec::new() };
        let (mut position, mut number) = (1u64 << 30, 1);
        for (step, from, end) in steps {
            match step {
                Step::Append(lengths, rest) => {
                    let mut noise = |length| {
                        let mut bytes = vec![0; length];
                        rng.fill(&mut bytes);
                        Bytes::from(bytes)
                    };
                    let pieces: Vec<Bytes> = lengths.into_iter().map(&mut noise).collect();
                    let mut bytes = pieces.concat();
                    bytes.truncate(bytes.len().saturating_sub(rest));
                    let (start, last) = (Lsn(position), Lsn(position + bytes.len() as u64));
                    if through_another {
                        let mut another = Tail::new(capacity.max(1_000_000));
                        another.append(timeline(number), start, last, &pieces);
                        tail.take(&mut another);
                        prop_assert!(another.pieces.is_empty() && another.length == 0);
                    } else {
                        tail.append(timeline(number), start, last, &pieces);
                    }
                    // Nothing is nothing to hand over.
                    if !(bytes.is_empty() && through_another) {
                        model.append(number, position, &bytes);
                        position = last.0;
                    }
                }
                Step::Back(bytes) => position = position.saturating_sub(bytes).max(1 << 20),
                Step::Skip(bytes) => position += bytes,
                Step::Timeline => number += 1,
                Step::Capacity(bytes) => {
                    capacity = bytes;
                    tail.set_capacity(bytes);
                }
            }
            if tail.length > 0 && number == model.timeline {
                check(&tail, &model, capacity, (from, end));
            }
        }
    }
}

#[test]
fn no_piece_keeps_the_buffer_that_it_was_read_into() {
    let capacity = 1 << 20;
    let mut tail = Tail::new(capacity);
    let mut position = 0;
    // A server can send a little WAL, and fill the rest of each buffer with something else.
    for length in [1, 1000, LARGE - 1, LARGE, 2 * LARGE, MAX_PIECE + 1, 700_000] {
        for _ in 0..20 {
            let buffer = Bytes::from(vec![7; 1 << 20]);
            let piece = buffer.slice(5..5 + length);
            let (start, end) = (Lsn(position), Lsn(position + length as u64));
            tail.append(timeline(1), start, end, &[piece]);
            position = end.0;
            assert!(buffer.is_unique());
            let held: usize = tail.pieces.iter().map(|piece| piece.bytes.len()).sum();
            assert!(held + tail.pieces.len() * PIECE_OVERHEAD <= capacity);
        }
    }
    assert!(tail.length > capacity - 2 * MAX_PIECE);
}

#[test]
fn pieces_of_one_byte_take_no_more_memory_than_there_may_be() {
    let mut tail = Tail::new(1 << 20);
    for position in 0..100_000 {
        let byte = Bytes::from_static(b"x");
        tail.append(timeline(1), Lsn(position), Lsn(position + 1), &[byte]);
        let queue = tail.pieces.capacity() * size_of::<Piece>();
        assert!(queue <= 2 << 20, "{queue}");
        assert!(tail.memory <= 1 << 20);
    }
}

#[test]
fn many_small_pieces_are_joined_to_few() {
    let mut tail = Tail::new(1 << 20);
    let piece = Bytes::from(vec![7; 100]);
    for number in 0..20_000 {
        let start = Lsn(number * 100);
        tail.append(
            timeline(1),
            start,
            Lsn(start.0 + 100),
            std::slice::from_ref(&piece),
        );
    }
    assert!(tail.length > (1 << 20) - 2 * LARGE);
    assert!(
        tail.pieces.len() < 16 + LARGE / 100,
        "{}",
        tail.pieces.len()
    );
}
