// Package record owns the recording: the file format that keeps what the kernel
// side told, so that it can be told again, elsewhere and later, with the same
// result.
//
// A recording is the batches of events.Record that a trace was given, in their
// order, behind a Meta, which holds what was known at the start. Whatever else a
// trace asked its machine while it ran (the path of a cgroup, the limits of a
// process) is kept as Facts, each in front of the first record that was handled
// with it: replay answers from there and asks nobody.
//
// # Format, version 1
//
// Integers of fixed width are little endian; varints are those of encoding/binary,
// signed ones zigzag. A recording may be compressed as a whole, with gzip or zstd;
// offsets are those of the uncompressed one.
//
//	recording  magic (8 bytes), version (uint32), block ...
//	block      type (1 byte), length of the payload (uint32),
//	           CRC-32C (uint32) of offset (uint64), type, length and payload,
//	           payload
//
// offset is that of the block itself: a block that was left out, doubled or moved
// is noticed. The first block is meta ('M'), the last end ('E'); between them are
// data blocks ('D'). Each block is understood on its own. A recording without its
// end was cut off.
//
//	meta   schema (varint), version, kernel, hooks (texts), ts, clock offset
//	       (varints), filters, attributes (maps)
//	end    number of records, facts and batches (uvarints)
//	data   entry ...
//	text   length (uvarint), bytes
//	map    1 + number of pairs, or 0 for none at all (uvarint), pairs of texts by
//	       ascending key
//
//	entry  1                                     the end of a batch
//	       2, topic (name), key (uvarint), value (text)           a fact
//	       3, fields (3 bytes), TS, SK, field ...   a record of a new socket
//	       4, fields (3 bytes), slot (uint16), TS, field ...   of a known one
//	name   0, text: the next number of the block from 1 on; or a number (uvarint)
//
// A record is written as its difference to a base. Records of the block go into
// slots by the address of their socket (slotOf); one whose slot holds the same
// socket has that as its base, any other the record before it, or the zero record
// in front of the block's first. The bits of fields say which of them differ, in
// the order of the field constants. Numbers are written as signed differences
// modulo 2^64 (Old is compared with the base's New in entry 4), the names of
// processes as names, addresses as 0 for none, 4 or 6 and the bytes, or 7, the
// bytes of an IPv6 address and its zone (name).
package record
