//! Bugs to plant, so that the simulator's checkers are tested too. Only with the feature `planted`.

/// A bug that a checker must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A client hears of its job before the job is durable.
    SpeakBeforePersist,
    /// A lost agent's shards are forgotten.
    ForgetLostShards,
    /// Leases never run out.
    KeepLapsedLeases,
    /// An errand that a lane gives back is dropped.
    DropReturnedErrands,
    /// Of two answers that differ, the second is believed.
    BelieveTheSecond,
    /// Shards of a recovered job that are done are computed and counted again.
    ForgetProgress,
    /// A refused write of a job's end is not tried again.
    DropRefusedEndings,
    /// Shards returned by a deserted lane wake nobody.
    LetLanesStarve,
    /// An errand that nobody could run is tried again when agents join, and at no other time.
    WakeStuckErrandsOnChangeOnly,
    /// An attempt whose lease ran out takes no credit although its agent may hold it.
    ForgetLapsedCredit,
    /// After a check that came back as garbage, the agent under check may confirm itself.
    AskTheFirstAgain,
    /// The panels of a tile are added as they arrive.
    FoldAsTheyCome,
    /// A matrix is read from the store before its last tile is there.
    AssembleEarly,
    /// A stage follows before the last product of the one before is there.
    BeginStageEarly,
    /// Agents are not told of a stage's task when they know that of the stage before.
    KeepOldTasks,
    /// Lost attempts are tried again and not counted.
    ForgetLosses,
    /// A shard that fails is tried again for ever.
    RetryForEver,
    /// A shard that lost agents fails its job before one of the operator's own has tried it.
    PoisonWithoutAnchor,
    /// A shard is tried again with agents of the provider where it failed.
    RetryBesideTheFailed,
    /// Agents rest however many rest already.
    RestTheWholeLane,
    /// Agents that rest never come back.
    RestForEver,
    /// No attempt is made beside a slow one.
    NeverSpare,
    /// A batch is final before its checks have agreed.
    ReleaseBeforeCheck,
    /// An agent that was proven wrong keeps what it answered besides.
    KeepARefutedBatch,
    /// Shards whose answers are recalled are not computed again.
    LoseTheRecalled,
    /// Nothing is ever checked.
    NeverSample,
    /// A submission whose write is said to have failed is written again as another job.
    RetryUnderANewName,
    /// A client hears of its job although the write of it failed.
    AcceptUnwritten,
    /// A client hears that its job is stopped before that is durable.
    StopBeforePersist,
    /// A tile whose write failed counts as written.
    BelieveRefusedTiles,
    /// A tile whose sum is lost is waited for.
    WaitForTheLost,
    /// A product whose write failed counts as stored.
    BelieveRefusedProducts,
    /// A recovered job goes on with its first round, whichever it was in.
    RecoverTheFirstRound,
    /// A job that extends another forgets that one's samples.
    ForgetTheBase,
    /// An agent that comes back keeps the session it had.
    KeepOldSessions,
    /// The shard of an attempt whose lease ran out is forgotten.
    ForgetLapsedShards,
    /// Agents are not told of a round's pass when they know that of a round before.
    KeepOldPasses,
    /// A project pays nothing for its shards: whoever came first stays first.
    ChargeNobody,
    /// All projects pay the same, whatever their weights.
    IgnoreWeights,
    /// Batch jobs wait until no interactive one is left.
    StarveBatch,
    /// A job whose deadline comes near waits its turn like any other.
    IgnoreDeadlines,
    /// A project with as much in flight as it may gets more.
    ForgetQuotas,
    /// The client is not told that a result rests on the word of an agent proven wrong since.
    ForgetTaint,
    /// Answers that look odd are checked no more than others.
    IgnoreOddities,
    /// A record pays for shards that it does not say are done.
    PayWhatIsNotDone,
    /// A tile is written without who is paid for it.
    ForgetThePayOfTiles,
    /// What is left of a job's hold goes to the hub when it ends, and not back to the project.
    KeepTheChange,
    /// What a record was to write on a page is forgotten when the store refuses it.
    LoseUnwrittenPages,
    /// Who answers a shard again whose answer is known is paid as if it were new.
    PayProbesAsShards,
    /// Agents get shards of jobs that must not leave other regions.
    IgnoreRegions,
    /// Who alone answered shards of a job is not written down with its end.
    ForgetWhoWasAlone,
    /// A hub takes over jobs of one whose beat stands still, without taking its fence down first.
    AdoptUnfenced,
    /// A hub that could not renew its own lease counts the time against others.
    JudgeThroughOutages,
    /// A takeover whose outcome nobody knows is not looked at again.
    ForgetFailedAdoptions,
    /// A hub whose fence is down goes on.
    ServeBehindTheFence,
    /// A hub leads although another does.
    LeadUnasked,
    /// Jobs that are nobody's stay so.
    ForgetOrphans,
    /// A job is accepted, and whose it is not written down.
    AcceptForNobody,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 58] = [
        Planted::SpeakBeforePersist,
        Planted::ForgetLostShards,
        Planted::KeepLapsedLeases,
        Planted::DropReturnedErrands,
        Planted::BelieveTheSecond,
        Planted::ForgetProgress,
        Planted::DropRefusedEndings,
        Planted::LetLanesStarve,
        Planted::WakeStuckErrandsOnChangeOnly,
        Planted::ForgetLapsedCredit,
        Planted::AskTheFirstAgain,
        Planted::FoldAsTheyCome,
        Planted::AssembleEarly,
        Planted::BeginStageEarly,
        Planted::KeepOldTasks,
        Planted::ForgetLosses,
        Planted::RetryForEver,
        Planted::PoisonWithoutAnchor,
        Planted::RetryBesideTheFailed,
        Planted::RestTheWholeLane,
        Planted::RestForEver,
        Planted::NeverSpare,
        Planted::ReleaseBeforeCheck,
        Planted::KeepARefutedBatch,
        Planted::LoseTheRecalled,
        Planted::NeverSample,
        Planted::RetryUnderANewName,
        Planted::AcceptUnwritten,
        Planted::StopBeforePersist,
        Planted::BelieveRefusedTiles,
        Planted::WaitForTheLost,
        Planted::BelieveRefusedProducts,
        Planted::RecoverTheFirstRound,
        Planted::ForgetTheBase,
        Planted::KeepOldSessions,
        Planted::ForgetLapsedShards,
        Planted::KeepOldPasses,
        Planted::ChargeNobody,
        Planted::IgnoreWeights,
        Planted::StarveBatch,
        Planted::IgnoreDeadlines,
        Planted::ForgetQuotas,
        Planted::ForgetTaint,
        Planted::IgnoreOddities,
        Planted::PayWhatIsNotDone,
        Planted::ForgetThePayOfTiles,
        Planted::KeepTheChange,
        Planted::LoseUnwrittenPages,
        Planted::PayProbesAsShards,
        Planted::IgnoreRegions,
        Planted::ForgetWhoWasAlone,
        Planted::AdoptUnfenced,
        Planted::JudgeThroughOutages,
        Planted::ForgetFailedAdoptions,
        Planted::ServeBehindTheFence,
        Planted::LeadUnasked,
        Planted::ForgetOrphans,
        Planted::AcceptForNobody,
    ];
}

/// The bug a room carries. Without the feature it holds nothing and says no.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planting {
    #[cfg(feature = "planted")]
    bug: Option<Planted>,
}

impl Planting {
    #[cfg(feature = "planted")]
    pub(crate) fn new(bug: Option<Planted>) -> Planting {
        Planting { bug }
    }

    pub(crate) fn is(self, bug: Planted) -> bool {
        #[cfg(feature = "planted")]
        return self.bug == Some(bug);
        #[cfg(not(feature = "planted"))]
        {
            let _ = bug;
            false
        }
    }
}
