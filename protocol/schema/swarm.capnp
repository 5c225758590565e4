# The wire contract of the swarm. Field names are those of protocol/messages.py in camelCase, widths are the same;
# protocol/overlay.py compares both at import and refuses to start when they differ.
#
# Evolution: append fields, structs and columns only; never change a type, an ordinal or the file id; no default other
# than zero (the overlay reads raw words, and Cap'n Proto stores a value XOR its default). Batches are one segment,
# unpacked. Agents are roster positions, prices are in units of 1/10,000, times ending in Ns are nanoseconds.

@0xcf10b3e59a5d7c21;

# --- the batch: one per flush ----------------------------------------------------------------------------------------

struct Batch {
  epoch @0 :UInt64;                  # of the sending process
  sender @1 :UInt16;
  flags @2 :UInt16;                  # none defined yet, 0
  sequence @3 :UInt64;               # numbers the sender's batches on this connection
  sentAtNs @4 :UInt64;
  acknowledgedSequence @5 :UInt64;   # highest batch sequence received from the addressee

  hdrs @6 :List(MsgHdr);             # in the order of sending

  # One column per message type, hottest first. A writer may leave out trailing empty columns.
  submits @7 :List(Submit);
  frameVotes @8 :List(FrameVote);
  appendEntries @9 :List(AppendEntries);
  appendEntriesResponses @10 :List(AppendEntriesResponse);
  prePrepares @11 :List(PrePrepare);
  prepares @12 :List(Prepare);
  commits @13 :List(Commit);
  newOrders @14 :List(NewOrder);
  executionReports @15 :List(ExecutionReport);
  orderEvents @16 :List(OrderEvent);
  marketAdvances @17 :List(MarketAdvance);
  requestVotes @18 :List(RequestVote);
  requestVoteResponses @19 :List(RequestVoteResponse);
  slotRequests @20 :List(SlotRequest);
  slotReplies @21 :List(SlotReply);
  orderStatusRequests @22 :List(OrderStatusRequest);
  orderEventsRequests @23 :List(OrderEventsRequest);
  hellos @24 :List(Hello);
  helloAcks @25 :List(HelloAck);
  refusals @26 :List(Refused);
  statusRequests @27 :List(StatusRequest);
  statusReplies @28 :List(StatusReply);
  orderEventsHeads @29 :List(OrderEventsHead);
  credits @30 :List(Credit);
  readIndexes @31 :List(ReadIndex);
  readIndexResponses @32 :List(ReadIndexResponse);
  timeoutNows @33 :List(TimeoutNow);
  installSnapshots @34 :List(InstallSnapshot);
  installSnapshotResponses @35 :List(InstallSnapshotResponse);
}

struct MsgHdr {
  kind @0 :UInt16;     # position in WIRE_TYPES; names the column
  row @1 :UInt32;      # position in that column; each row is named exactly once, in order
  trace @2 :UInt64;    # cycle number, 0 for none
}

# --- control ---------------------------------------------------------------------------------------------------------

struct Hello {
  clusterId @0 :Data;
  agent @1 :UInt16;
  epoch @2 :UInt64;
  rosterDigest @3 :Data;
  signature @4 :Data;
  certificates @5 :Data;
  possession @6 :Data;
}

struct HelloAck {
  agent @0 :UInt16;
  epoch @1 :UInt64;
  rosterDigest @2 :Data;
  signature @3 :Data;
}

struct Refused {
  reason @0 :Text;
}

struct Credit {
  channel @0 :UInt8;
  moreBytes @1 :UInt64;
}

struct StatusRequest {
  nonce @0 :UInt64;
  detail @1 :UInt8;
}

struct StatusReply {
  nonce @0 :UInt64;
  body @1 :Data;
}

# --- decisions -------------------------------------------------------------------------------------------------------

struct Intent {        # pointer-free: a list of them is an array of 40-byte rows
  sequence @0 :UInt64;
  symbol @1 :UInt32;
  side @2 :UInt8;
  timeInForce @3 :UInt8;
  quantity @4 :Int64;
  limitPrice @5 :Int64;
  referencePrice @6 :Int64;
}

struct Claim {
  symbol @0 :UInt32;
  queryEnd @1 :UInt32;
  window @2 :UInt32;
  starts @3 :List(UInt32);
  distances @4 :List(Float64);
  forecastBps @5 :Int64;
}

struct Frame {
  clusterId @0 :Data;
  trader @1 :UInt16;
  path @2 :UInt8;
  epoch @3 :UInt32;
  sliceId @4 :UInt32;
  sliceVersion @5 :UInt32;
  sequence @6 :UInt64;
  cycle @7 :UInt64;
  marketIndex @8 :UInt32;
  createdAtNs @9 :UInt64;
  expiresAtNs @10 :UInt64;
  intents @11 :List(Intent);
  claims @12 :List(Claim);
  windows @13 :List(Float32);        # query windows of the claims, row by row; release 2
  windowLength @14 :UInt16;          # samples per window; release 2
}

struct SliceGrant {
  clusterId @0 :Data;
  sliceId @1 :UInt32;
  version @2 :UInt32;
  epoch @3 :UInt32;
  trader @4 :UInt16;
  gate @5 :UInt16;
  notionalLimit @6 :Int64;
  symbolNotionalLimit @7 :Int64;
}

struct SignedCommand {
  kind @0 :UInt8;
  author @1 :UInt16;
  body @2 :Data;       # an encoded Frame or SliceGrant: opaque here, because the signature covers exactly these bytes
  signature @3 :Data;
}

struct Submit {
  path @0 :UInt8;
  propose @1 :Bool;
  command @2 :SignedCommand;
}

struct Denial {        # pointer-free
  intent @0 :UInt16;
  code @1 :UInt16;
}

struct FrameVote {
  replica @0 :UInt16;
  path @1 :UInt8;
  term @2 :UInt64;
  index @3 :UInt64;
  digest @4 :Data;
  denials @5 :List(Denial);
  signature @6 :Data;
}

struct Outcome {
  index @0 :UInt64;
  digest @1 :Data;
  codes @2 :List(UInt16);
  votes @3 :List(FrameVote);
}

# --- Raft ------------------------------------------------------------------------------------------------------------

struct Entry {
  term @0 :UInt64;
  index @1 :UInt64;
  kind @2 :UInt8;
  payload @3 :Data;    # hashed and stored as it is
}

struct RequestVote {
  term @0 :UInt64;
  candidate @1 :UInt16;
  lastLogIndex @2 :UInt64;
  lastLogTerm @3 :UInt64;
  preVote @4 :Bool;
  transfer @5 :Bool;
}

struct RequestVoteResponse {
  term @0 :UInt64;
  voter @1 :UInt16;
  granted @2 :Bool;
  preVote @3 :Bool;
}

struct AppendEntries {
  term @0 :UInt64;
  leader @1 :UInt16;
  previousLogIndex @2 :UInt64;
  previousLogTerm @3 :UInt64;
  leaderCommit @4 :UInt64;
  entries @5 :List(Entry);
  round @6 :UInt64;
}

struct AppendEntriesResponse {
  term @0 :UInt64;
  follower @1 :UInt16;
  success @2 :Bool;
  matchIndex @3 :UInt64;
  hintTerm @4 :UInt64;
  round @5 :UInt64;
}

struct InstallSnapshot {
  term @0 :UInt64;
  leader @1 :UInt16;
  index @2 :UInt64;
  indexTerm @3 :UInt64;
  membership @4 :Data;
  digest @5 :Data;
  size @6 :UInt64;
  offset @7 :UInt64;
  chunk @8 :Data;
  round @9 :UInt64;
}

struct InstallSnapshotResponse {
  term @0 :UInt64;
  follower @1 :UInt16;
  index @2 :UInt64;
  offset @3 :UInt64;
  round @4 :UInt64;
}

struct TimeoutNow {
  term @0 :UInt64;
  leader @1 :UInt16;
}

struct ReadIndex {
  term @0 :UInt64;
  replica @1 :UInt16;
  request @2 :UInt64;
}

struct ReadIndexResponse {
  term @0 :UInt64;
  leader @1 :UInt16;
  request @2 :UInt64;
  granted @3 :Bool;
  index @4 :UInt64;
}

# --- PBFT ------------------------------------------------------------------------------------------------------------

struct PrePrepare {
  view @0 :UInt64;
  sequence @1 :UInt64;
  digest @2 :Data;
  primary @3 :UInt16;
  commands @4 :List(SignedCommand);
  signature @5 :Data;
}

struct Prepare {
  view @0 :UInt64;
  sequence @1 :UInt64;
  digest @2 :Data;
  replica @3 :UInt16;
  signature @4 :Data;
}

struct Commit {
  view @0 :UInt64;
  sequence @1 :UInt64;
  digest @2 :Data;
  replica @3 :UInt16;
  signature @4 :Data;
}

struct CommittedSlot {
  view @0 :UInt64;
  sequence @1 :UInt64;
  digest @2 :Data;
  commands @3 :List(SignedCommand);
  commits @4 :List(Commit);
}

struct SlotRequest {
  replica @0 :UInt16;
  fromSequence @1 :UInt64;
}

struct SlotReply {
  slots @0 :List(CommittedSlot);
}

# --- orders ----------------------------------------------------------------------------------------------------------

struct NewOrder {
  clOrdId @0 :Text;
  symbol @1 :UInt32;
  side @2 :UInt8;
  timeInForce @3 :UInt8;
  quantity @4 :Int64;
  limitPrice @5 :Int64;
  marketIndex @6 :UInt32;
}

struct OrderStatusRequest {
  clOrdId @0 :Text;
}

struct MarketAdvance {
  marketIndex @0 :UInt32;
}

struct ExecutionReport {
  clOrdId @0 :Text;
  orderId @1 :UInt64;
  execId @2 :UInt64;
  execType @3 :UInt8;
  ordStatus @4 :UInt8;
  symbol @5 :UInt32;
  side @6 :UInt8;
  orderQuantity @7 :Int64;
  lastQuantity @8 :Int64;
  lastPrice @9 :Int64;
  cumulativeQuantity @10 :Int64;
  leavesQuantity @11 :Int64;
  reason @12 :UInt16;
  marketIndex @13 :UInt32;
}

struct OrderEvent {
  executor @0 :UInt16;
  sequence @1 :UInt64;
  trader @2 :UInt16;
  intent @3 :UInt64;
  cycle @4 :UInt64;
  leg @5 :UInt8;
  state @6 :UInt8;
  report @7 :ExecutionReport;
}

struct OrderEventsRequest {
  fromSequence @0 :UInt64;
}

struct OrderEventsHead {
  executor @0 :UInt16;
  nextSequence @1 :UInt64;
}
