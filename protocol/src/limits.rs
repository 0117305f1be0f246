//! Every limit of the product, by name, with where it comes from.

/// Largest JSON body the HTTP API takes. *Units*: bytes. A book of 5,000 contracts with monthly
/// fixings is about 2 MB.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Longest job, project, contract or driver name. *Units*: bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Largest seed: the integers an IEEE double, and so RFC 8785 JSON, carries exactly (RFC 7493).
pub const SEED_MAX: u64 = (1 << 53) - 1;
/// Most paths of one job; below 2^53 for the same reason and far above a year of a large fleet.
pub const PATHS_MAX: u64 = 1_000_000_000_000_000;
/// Most paths of one shard: about a minute of one slow core, so that a lease means something.
pub const SHARD_PATHS_MAX: u64 = 1 << 30;
/// Most shards of one job: a billion of them cost a hub nothing, but more are a slip of the pen.
pub const SHARDS_MAX: u64 = 1_000_000_000;
/// Most contracts of one book: its result, at about 900 bytes a contract, and its tally, at about
/// 400, are written in one transaction of at most 10 MB.
pub const CONTRACTS_MAX: usize = 5_000;
/// Most bins of a tally: 64 powers of two, both signs, 4,096 bins each.
pub const TALLY_BINS_MAX: usize = 1 << 19;
/// Most ranges of values that one pass counts more finely: one to each quantile of a result. With 16 bits
/// of each, the bins of a tally hold them all, whatever the values.
pub const REFINED_RANGES_MAX: usize = 8;
/// Most sums of a tally: those of the largest book.
pub const TALLY_SUMS_MAX: usize =
    CONTRACTS_MAX * crate::monte_carlo::SUMS_PER_CONTRACT + crate::monte_carlo::SUMS_PER_BOOK;
/// Most counts of a tally: those of the largest book.
pub const TALLY_COUNTS_MAX: usize = CONTRACTS_MAX * crate::monte_carlo::HISTOGRAM_BINS;
/// Most dates on which one driver is sampled: daily for twenty years.
pub const GRID_TIMES_MAX: usize = 5_040;
/// Most underlyings that move together, and most of one basket: their factor is a triangle of 8,256 numbers.
pub const CORRELATED_MAX: usize = 128;
/// Most steps of one underlying's variance: ten to each date of the finest grid.
pub const VARIANCE_STEPS_MAX: usize = 10 * GRID_TIMES_MAX;
/// Fewest paths from which the exercise of an American contract is learnt.
pub const TRAINING_PATHS_MIN: u32 = 1_024;
/// Most paths from which the exercise of an American contract is learnt.
pub const TRAINING_PATHS_MAX: u32 = 1 << 17;
/// Most prices that learning keeps at a time: 32 MiB of them.
pub const TRAINING_PRICES_MAX: u64 = 1 << 22;
/// Most prices that learning for a whole book draws: about ten seconds of one core, before its first path.
pub const TRAINING_DRAWS_MAX: u64 = 1 << 29;
/// Most rows or columns of a matrix: a row of doubles is then at most 1 MiB.
pub const MATRIX_SIDE_MAX: u64 = 1 << 17;
/// Largest matrix, operand or result. *Units*: bytes. With the longest header it is the largest input of a hub, 16 GiB,
/// which holds 46,340 rows and columns of doubles; nobody holds it in memory.
pub const MATRIX_BYTES_MAX: u64 = (16 << 30) - (64 << 10);
/// Smallest side of a tile: below it a shard costs more to send than to compute.
pub const TILE_SIDE_MIN: u64 = 16;
/// Largest side of a tile: a tile of doubles is then 8 MiB, and fits one transaction of the store.
pub const TILE_SIDE_MAX: u64 = 1_024;
/// Fewest terms of a k-panel.
pub const K_PANEL_MIN: u64 = 16;
/// Most cells of a climate field's grid: a regular global grid of a quarter of a degree has 1,038,240.
pub const CLIMATE_CELLS_MAX: u64 = 1 << 21;
/// Most samples of a climate field, all files together: 179 years of days.
pub const CLIMATE_SAMPLES_MAX: u64 = 1 << 16;
/// Most samples or cells, whichever are fewer, of a climate field: the matrix that is decomposed then has
/// 128 MiB, and one core takes about two minutes.
pub const CLIMATE_SIDE_MAX: u64 = 1 << 12;
/// Most bytes of values that a climate survey takes out of NetCDF-4 files, all together: with coordinates they
/// fit a product.
pub const CLIMATE_UNPACKED_BYTES_MAX: u64 = 32 << 20;
/// Most modes of a climate field.
pub const CLIMATE_MODES_MAX: u64 = 256;
/// Most of the numbers that a climate job writes to one file, so that the file fits a product. *Units*: bytes.
pub const CLIMATE_OUTPUT_BYTES_MAX: u64 = 48 << 20;
/// Most declared inputs of one job.
pub const INPUTS_MAX: usize = 64;
/// Most attempts at one shard beyond the first that a client may ask for.
pub const RETRIES_MAX: u32 = 16;
/// Longest deadline a client may set. *Units*: seconds (30 days).
pub const DEADLINE_S_MAX: u64 = 30 * 24 * 3600;
/// Most models of GPU that one job may name.
pub const GPU_MODELS_MAX: usize = 16;
/// Longest name of a region. *Units*: bytes.
pub const REGION_BYTES_MAX: usize = 32;
/// Most regions that one job may name.
pub const REGIONS_MAX: usize = 16;
/// Most open jobs of one project; the next is refused until one ends.
pub const OPEN_JOBS_PER_PROJECT_MAX: usize = 1_000;
/// Longest Idempotency-Key. *Units*: bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Version byte that opens every frame.
pub const FRAME_VERSION: u8 = 3;
/// ALPN of the agent protocol; a change in how connections and streams are used takes a new name. Frames say their own
/// version, and so which side is to be updated.
pub const ALPN: &[u8] = b"tessera/2";
/// Most hubs that serve side by side and that an agent is told of: as many addresses as an agent tries, and a hub may
/// make it try. The rest still serve.
pub const HUBS_MAX: usize = 16;
/// Largest frame on a control stream. *Units*: bytes, version byte included.
/// Holds a heartbeat that names [`BATCH_ITEMS_MAX`] attempts of 32 bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 << 10;
/// Largest frame on a work stream. *Units*: bytes, version byte included.
pub const WORK_FRAME_BYTES_MAX: usize = 1 << 20;
/// Largest payload on a stream of its own, header included. *Units*: bytes.
pub const BULK_BYTES_MAX: usize = 64 << 20;
/// Most of a product that planners read. *Units*: bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most files of one product.
pub const PRODUCT_FILES_MAX: usize = 64;
/// Longest product, so that it fits a bulk frame. *Units*: bytes.
pub const PRODUCT_BYTES_MAX: usize = BULK_BYTES_MAX - (4 << 10);
/// Most shards of one stage: a planner reads the heads of all.
pub const STAGE_SHARDS_MAX: u64 = 4_096;
/// Longest task of a stage, so that it fits a work frame. *Units*: bytes.
pub const STAGE_TASK_BYTES_MAX: usize = WORK_FRAME_BYTES_MAX - (64 << 10);
/// Most stages of one job.
pub const STAGES_MAX: usize = 16;
/// Payloads above this travel on a stream of their own, so that bulk never blocks small work.
/// *Units*: bytes. Source: the architecture's transport measurements.
pub const INLINE_BYTES_MAX: usize = 16 << 10;
/// A piece of an input as agents ask for it. *Units*: bytes.
pub const INPUT_PIECE_BYTES: u64 = 4 << 20;
/// Most GPUs of one agent.
pub const GPUS_MAX: usize = 64;
/// Most assignments or results in one frame.
pub const BATCH_ITEMS_MAX: usize = 4_096;
/// Most slots one agent may offer: the logical CPUs of the largest machines sold, doubled.
pub const SLOTS_MAX: u16 = 2_048;
/// Shards in flight for each slot an agent offers: one computing, one waiting behind it.
pub const CREDIT_PER_SLOT: u32 = 2;

/// How often an agent says it is alive, a fifth more or less. *Units*: milliseconds.
pub const HEARTBEAT_MS: u64 = 10_000;
/// How long a silent agent keeps its shards. *Units*: milliseconds: three heartbeats of the usual length, and more than two of the longest.
pub const LEASE_MS: u64 = 30_000;

const _: () = assert!(INLINE_BYTES_MAX < WORK_FRAME_BYTES_MAX);
const _: () = assert!(WORK_FRAME_BYTES_MAX < BULK_BYTES_MAX);
const _: () = assert!(LEASE_MS >= 3 * HEARTBEAT_MS);
const _: () = assert!(LEASE_MS > 2 * (HEARTBEAT_MS + HEARTBEAT_MS / 5));
const _: () = assert!(SLOTS_MAX as usize * CREDIT_PER_SLOT as usize <= BATCH_ITEMS_MAX);
const _: () = assert!(BATCH_ITEMS_MAX * 32 < CONTROL_FRAME_BYTES_MAX);
const _: () = assert!(PATHS_MAX <= SEED_MAX);
const _: () = assert!(REFINED_RANGES_MAX << 16 <= TALLY_BINS_MAX);
/// Payments of a provider for its last shards and checks that are not payable yet, and are lost when an agent of it
/// is removed. *Source*: what a liar can earn before a check finds it must be less than what it then loses; at one
/// check in 25 shards it lies in 25 on average.
pub const HELD_PAYMENTS: u64 = 40;
