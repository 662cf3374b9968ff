//! A history file that is taken is kept as it is, and its ancestors lead to its timeline.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use walproto::{TimelineHistory, TimelineId};

fuzz_target!(|content: &[u8]| {
    let timeline = TimelineId::new(u32::MAX).unwrap();
    let content = Bytes::copy_from_slice(content);
    let Ok(history) = TimelineHistory::parse(timeline, content.clone()) else {
        return;
    };
    assert_eq!(history.content(), &content);
    for switch in history.ancestors() {
        assert!(history.successor_of(switch.timeline) > Some(switch.timeline));
        assert!(history.timeline_of(switch.switch_point) > switch.timeline);
    }
});
