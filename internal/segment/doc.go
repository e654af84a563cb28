// Package segment keeps the entries of the Raft log on disk. The Raft log is the binlog store: each entry is written once, with
// the binlog bytes that belong to it, and served from where it was written.
//
// A folder holds segment files of consecutive entries, each named by the index of its first entry. The last one is active:
// entries are appended to it. The others are sealed and never change, except that a cut of the tail may make one active again, and that
// Repair puts back a record that the disk has lost.
// The format is described in format.go and in docs/format/segment.md.
//
// # What is assumed
//
//   - A sync (fsync, fdatasync) that returned nil has made durable what was written before it, and the file's length.
//   - What was written and not synced may after a crash be there, be missing or be torn at any byte, independently of what was
//     written before or after it; space that a file gained may hold anything.
//   - A byte that a write did not touch keeps its value, even in the sector that a torn write rewrote with the same content.
//   - The name of a new, renamed or removed file is durable after its folder was synced, and each change of the folder is
//     all or nothing.
//   - After a failed sync the pages may be marked clean though they are lost. So nothing is written after one (the Log is
//     poisoned), and Open drops the cache before it reads.
//
// # Torn or damaged
//
// Appending is strictly write, sync, write, sync. Every record tells how far the file had been synced when it was written. A bad
// record is a torn write, and is cut off together with all behind it, unless it is proved to have been synced: its index is at or
// below [Options.Committed], or a valid record behind it says so, or its segment has a successor. Then it is damage, and
// Open refuses with a [*DamageError], or cuts the log off there if [Options.CutDamage] says so. What cannot be told apart: damage
// in the very last batch, above Committed. It is cut off, and reported in [Recovery].
//
// Sealed segments are not read by Open. Each segment names its predecessor, its length and its last term, so that a missing,
// exchanged or shortened one is found without reading it. Damage within is found on reading, as a [*CorruptError], and mended
// by [Log.Repair] with the entry of another node.
//
// # Crash safety, operation by operation
//
//   - Append: one write behind the end. Nothing in front of the end is touched. Torn: cut off by Open.
//   - Seal: the old segment is synced before the new file appears. The new file's header is synced, and then the folder, before
//     an entry is written behind it. Crash: a last file with a torn header and nothing behind it is removed by Open.
//   - Cut the tail (TruncateAfter, conflicting Append): segments behind the cut are removed newest first, the folder is synced after
//     each, then the file is cut and synced, all before anything is written. Crash: a longer tail of the old entries
//     is left, which is a valid log; bytes that were cut off are never followed by new ones.
//   - Drop the head (DropBefore): oldest first, and the folder is synced after each. Crash: some segments come back, without a hole.
//   - ResetTo: a plan (file "reset") is written durably, then carried out, then removed durably. Crash: Open carries it out again.
//   - Repair: one write over a record that is damaged, or over its payload alone if the header is sound, and a sync. Torn: the record is
//     still damaged, its neighbours are untouched, and it may be repaired again. To Open it is what it was before.
//   - Cut off damage (CutDamage): the last segment to be kept is cut and synced, then those behind are removed, oldest first, and the
//     folder is synced after each. Crash: the same damage is found at the same place, until the last one is removed. A damaged end
//     of the last segment is one cut; after it only Committed tells that there was more.
//   - Open: what a process that was killed left in the cache is made durable first (the folder's names, the last file), and the
//     cache of the last file is dropped, so that nothing is built on what the disk does not have.
//   - Full disk: what was written of the batch is cut off and the cut synced. The Log goes on when there is room.
//
// # Concurrency
//
// Writing calls exclude one another. Any number of Readers run beside them, each used by one goroutine at a time. The
// package starts no goroutines.
package segment
