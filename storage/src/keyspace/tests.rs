use super::*;
use crate::chunked::chunk_key;

fn keys() -> [(Key<'static>, Vec<u8>); 42] {
    let sixteen = *b"0123456789abcdef";
    let digest = Digest([7; 32]);
    let with = |prefix: &[u8], rest: &[u8]| [prefix, rest].concat();
    let idempotency = Key::Idempotency { project: "quant", key: b"k/1" };
    [
        (Key::Format, b"meta/format".to_vec()),
        (Key::Upgrade, b"meta/upgrade".to_vec()),
        (Key::Copying, b"meta/copying".to_vec()),
        (Key::HubIdentity, b"hub/identity".to_vec()),
        (Key::HubSampling, b"hub/sampling".to_vec()),
        (Key::HubStartToken, b"hub/start-token".to_vec()),
        (Key::HubActive, b"hub/active".to_vec()),
        (Key::Entry(HubId(sixteen)), b"entry/0123456789abcdef".to_vec()),
        (Key::Fence(HubId(sixteen)), b"fence/0123456789abcdef".to_vec()),
        (Key::HubAt(HubId(sixteen)), b"hub-at/0123456789abcdef".to_vec()),
        (Key::Owner(JobId(sixteen)), b"owner/0123456789abcdef".to_vec()),
        (Key::Act { hub: HubId(sixteen), number: 258 }, b"act/0123456789abcdef\0\0\0\0\0\0\x01\x02".to_vec()),
        (Key::Job(JobId(sixteen)), b"job/0123456789abcdef".to_vec()),
        (Key::Manifest(JobId(sixteen)), b"manifest/0123456789abcdef".to_vec()),
        (Key::Progress(JobId(sixteen)), b"progress/0123456789abcdef".to_vec()),
        (Key::Result(JobId(sixteen)), b"result/0123456789abcdef".to_vec()),
        (Key::Tile { job: JobId(sixteen), tile: 258 }, b"tile/0123456789abcdef\0\0\0\0\0\0\x01\x02".to_vec()),
        (Key::Input(digest), with(b"input/", &[7; 32])),
        (
            Key::Piece { input: digest, piece: 3 },
            [&b"piece/"[..], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 3]].concat(),
        ),
        (
            Key::BlobPiece { blob: digest, piece: 3 },
            [&b"blob-piece/"[..], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 3]].concat(),
        ),
        (Key::Pruned(JobId(sixteen)), b"pruned/0123456789abcdef".to_vec()),
        (
            Key::Extension { parent: JobId(sixteen), child: JobId([1; 16]) },
            [&b"extension/"[..], &sixteen, &[1; 16]].concat(),
        ),
        (
            Key::BlobRef { blob: digest, job: JobId(sixteen) },
            [&b"blob-ref/"[..], &[7; 32], &sixteen].concat(),
        ),
        (
            Key::JobBlob { job: JobId(sixteen), blob: digest },
            [&b"job-blob/"[..], &sixteen, &[7; 32]].concat(),
        ),
        (
            Key::BlobOwner { blob: digest, project: "quant" },
            [&b"blob-owner/"[..], &[7; 32], b"quant"].concat(),
        ),
        (Key::Upload(digest), with(b"upload/", &[7; 32])),
        (idempotency, b"idem/\x00\x05quantk/1".to_vec()),
        (Key::Agent(AgentId(sixteen)), b"agent/0123456789abcdef".to_vec()),
        (Key::Token(digest), with(b"token/", &[7; 32])),
        (Key::Provider(ProviderId(sixteen)), b"provider/0123456789abcdef".to_vec()),
        (Key::AuditHead, b"hub/audit-head".to_vec()),
        (Key::Bill(JobId(sixteen)), b"bill/0123456789abcdef".to_vec()),
        (
            Key::TilePay { job: JobId(sixteen), tile: 258 },
            b"tile-pay/0123456789abcdef\0\0\0\0\0\0\x01\x02".to_vec(),
        ),
        (
            Key::PayPage { job: JobId(sixteen), page: 258 },
            b"pay-page/0123456789abcdef\0\0\0\0\0\0\x01\x02".to_vec(),
        ),
        (
            Key::Earning { provider: ProviderId([1; 16]), ended_ms: 258, job: JobId(sixteen) },
            [&b"earning/"[..], &[1; 16], &[0, 0, 0, 0, 0, 0, 1, 2], &sixteen].concat(),
        ),
        (
            Key::Removal { provider: ProviderId(sixteen), at_ms: 7 },
            b"removal/0123456789abcdef\0\0\0\0\0\0\0\x07".to_vec(),
        ),
        (
            Key::Settled { provider: ProviderId(sixteen), settlement: 7 },
            b"settled/0123456789abcdef\0\0\0\0\0\0\0\x07".to_vec(),
        ),
        (Key::Settlement(7), b"settlement/\0\0\0\0\0\0\0\x07".to_vec()),
        (Key::Standing(AgentId(sixteen)), b"standing/0123456789abcdef".to_vec()),
        (Key::Audit(7), b"audit/\0\0\0\0\0\0\0\x07".to_vec()),
        (Key::Checkpoint(7), b"checkpoint/\0\0\0\0\0\0\0\x07".to_vec()),
        (Key::ApiKey(digest), with(b"key/", &[7; 32])),
    ]
}

#[test]
fn every_key_has_the_bytes_of_format_1_and_reads_back() {
    for (key, bytes) in keys() {
        assert_eq!(key.encode(), bytes, "{key:?}");
        assert!(key.family().range().contains(&bytes), "{key:?}");
        if key.is_chunked() {
            assert_eq!(Key::decode(&chunk_key(&bytes, 5)), Ok((key, Some(5))));
        } else {
            assert_eq!(Key::decode(&bytes), Ok((key, None)));
        }
    }
}

#[test]
fn bytes_that_no_key_has_are_refused() {
    let strange: [&[u8]; 9] = [
        b"",
        b"job",
        b"job/",
        b"job/0123456789abcde",
        b"job/0123456789abcdefg",
        b"result/0123456789abcdef",
        b"idem/\x00\x09quant",
        b"idem/\x00\x01\xff",
        b"hub/other",
    ];
    for bytes in strange {
        assert!(Key::decode(bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn no_key_lies_in_the_range_of_another_family() {
    for (key, bytes) in keys() {
        for family in Family::ALL {
            assert_eq!(family.range().contains(&bytes), family == key.family(), "{key:?} in {family:?}");
        }
    }
}

#[test]
fn the_keys_of_one_project_do_not_mix_with_those_of_another() {
    let key = Key::Idempotency { project: "ab", key: b"c" }.encode();
    assert_ne!(key, Key::Idempotency { project: "a", key: b"bc" }.encode());
    assert!(idempotency_of("ab").contains(&key));
    assert!(!idempotency_of("a").contains(&key));
}

#[test]
fn jobs_sort_by_age() {
    let older = Key::Job(JobId::new(255, [9; 10])).encode();
    let newer = Key::Job(JobId::new(256, [0; 10])).encode();
    assert!(older < newer);
}
