use super::*;
use alloc::vec;

fn recipe() -> Recipe {
    Recipe {
        stream: 0,
        codec: VideoCodec::H264,
        preset: 5,
        rate: Rate::Crf(23),
        bit_depth: 8,
        width: 320,
        height: 180,
        frame_rate: None,
        keyframe_interval: 50,
        time_base: [1, 12_800],
    }
}

fn encode_task() -> EncodeTask {
    let source = Source { blake3: [1; 32], bytes: 10 };
    let track = |stream, parts| AudioTrack {
        stream,
        codec: AudioCodec::Aac,
        kbps: 128,
        channels: 2,
        sample_rate: 48_000,
        parts,
    };
    EncodeTask {
        source,
        survey: Source { blake3: [2; 32], bytes: 20 },
        recipe: recipe(),
        frames: 130,
        segment_frames: 50,
        container: Container::Mp4,
        origin: 0,
        origin_base: [1, 12_800],
        audio: vec![track(1, 2), track(2, 1)],
        subtitles: vec![SubtitleTrack { stream: 3, to_text: true }],
    }
}

#[test]
fn the_units_of_an_encode_stage_are_parts_of_audio_then_subtitles_then_segments() {
    let task = encode_task();
    let units: Vec<Unit> = (0..task.units()).map(|index| task.unit(index).unwrap()).collect();
    assert_eq!(
        units,
        [
            Unit::Audio { track: 0, part: 0 },
            Unit::Audio { track: 0, part: 1 },
            Unit::Audio { track: 1, part: 0 },
            Unit::Subtitle { track: 0 },
            Unit::Segment { index: 0, first: 0, count: 50 },
            Unit::Segment { index: 1, first: 50, count: 50 },
            Unit::Segment { index: 2, first: 100, count: 30 },
        ]
    );
    assert_eq!(task.unit(7), None);
}

#[test]
fn every_segment_is_compared_by_one_part_of_the_output() {
    let mut task = FinishTask { encode: encode_task(), products: vec![], labels: vec![], parts: 1 };
    for parts in 1..9 {
        task.parts = parts;
        let compared: Vec<u64> = (0..u64::from(parts)).flat_map(|unit| task.segments_of(unit)).collect();
        assert_eq!(compared, [0, 1, 2]);
    }
}

#[test]
fn a_task_reads_back_and_one_outside_the_limits_is_refused() {
    let right = encode_task();
    let task = Task::Encode(right.clone());
    assert_eq!(Task::decode(&task.encode()), Ok(task.clone()));
    assert_eq!(task.inputs(), [([1; 32], 10), ([2; 32], 20)]);
    let with = |change: &dyn Fn(&mut EncodeTask)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        Task::decode(&Task::Encode(wrong).encode())
    };
    let wrong: [&dyn Fn(&mut EncodeTask); 7] = [
        &|task| task.segment_frames = 0,
        &|task| task.frames = 0,
        &|task| task.recipe.width = 321,
        &|task| task.recipe.preset = 9,
        &|task| task.recipe.time_base = [1, 0],
        &|task| task.recipe.time_base = [1, 1_000_000],
        &|task| task.audio[0].channels = 3,
    ];
    for change in wrong {
        assert_eq!(with(change), Err(TaskError::Limit));
    }
    let finish = FinishTask { encode: right, products: vec![], labels: vec![], parts: 1 };
    assert_eq!(Task::decode(&Task::Finish(finish).encode()), Err(TaskError::Shape));
    assert_eq!(Task::decode(b"no archive"), Err(TaskError::Malformed));
}

#[test]
fn a_track_counts_in_ticks_fine_enough_for_players() {
    let scale = |time_base| Recipe { time_base, ..recipe() }.timescale();
    assert_eq!(scale([1, 12_800]), [12_800, 1]);
    assert_eq!(scale([1, 25]), [10_000, 400]);
    assert_eq!(scale([1_001, 30_000]), [30_000, 1_001]);
}
