package record

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Version is the version of the format that this package writes, and the newest
// that it reads.
const Version = 1

// magic is no text and no beginning of one: a transfer that rewrites line ends
// breaks it at once.
const magic = "\x93tcptr\r\n"

// preambleSize is the size of magic and version.
const preambleSize = len(magic) + 4

// Types of blocks.
const (
	blockMeta = 'M'
	blockData = 'D'
	blockEnd  = 'E'
)

// Kinds of entries in a data block.
const (
	entryBatch  = 1
	entryFact   = 2
	entryRecord = 3 // the base is the record before
	entryKnown  = 4 // the base is the last record of the same socket
)

const (
	// frameSize is the size of what stands in front of a payload.
	frameSize = 1 + 4 + 4
	// maxPayload bounds what a reader holds at once.
	maxPayload = 1 << 20
	// fullBlock is the size at which a writer ends a data block. One more entry
	// always fits below maxPayload.
	fullBlock = 64 << 10
	// maxText bounds each text: names, keys and values.
	maxText = 64 << 10
)

// Bits of the fields of a record, in the order in which they are written.
const (
	fieldKind = 1 << iota
	fieldOld
	fieldNew
	fieldFlags
	fieldPID
	fieldComm
	fieldCookie
	fieldCgroupID
	fieldPeerSK
	fieldTimerNS
	fieldCount
	fieldNetNS
	fieldUID
	fieldFamily
	fieldLocalAddr
	fieldLocalPort
	fieldRemoteAddr
	fieldRemotePort
	fieldRXPending
	fieldTXPending
	fieldSRTTUS
	fieldFD
	fieldErr

	allFields = 1<<iota - 1
)

// Forms of an address.
const (
	addrNone  = 0
	addr4     = 4
	addr6     = 6
	addr6Zone = 7
)

const (
	slotBits = 9
	numSlots = 1 << slotBits
)

// slotOf spreads addresses of sockets over the slots. The factor is 2^64 divided
// by the golden ratio: multiples of an object's size do not meet.
func slotOf(sk uint64) uint16 {
	return uint16(sk * 0x9e3779b97f4a7c15 >> (64 - slotBits))
}

// slot is the last record of a socket in a block.
type slot struct {
	block uint32 // number of the block that it is of, from 1 on
	rec   events.Record
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame in memory is the block's offset, which is not written, then what is:
// the checksum takes the first three fields in one piece.
const (
	frameRoom = 8 + frameSize
	crcAt     = frameRoom - 4
)

// fillFrame fills in the frame but for the checksum, which it returns.
func fillFrame(frame []byte, offset int64, typ byte, payload []byte) uint32 {
	binary.LittleEndian.PutUint64(frame, uint64(offset))
	frame[8] = typ
	binary.LittleEndian.PutUint32(frame[9:], uint32(len(payload)))
	return crc32.Update(crc32.Checksum(frame[:crcAt], castagnoli), castagnoli, payload)
}
