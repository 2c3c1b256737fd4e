package events

import (
	"strconv"
	"strings"
)

// errnoNames are the errors that the kernel sets on TCP sockets, under Linux'
// numbers (include/uapi/asm-generic/errno*.h): a recording is read on any system.
var errnoNames = map[uint16]string{
	1: "EPERM", 4: "EINTR", 5: "EIO", 9: "EBADF", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES",
	22: "EINVAL", 32: "EPIPE", 71: "EPROTO", 90: "EMSGSIZE", 92: "ENOPROTOOPT",
	93: "EPROTONOSUPPORT", 95: "EOPNOTSUPP", 97: "EAFNOSUPPORT", 98: "EADDRINUSE",
	99: "EADDRNOTAVAIL", 100: "ENETDOWN", 101: "ENETUNREACH", 102: "ENETRESET",
	103: "ECONNABORTED", 104: "ECONNRESET", 105: "ENOBUFS", 106: "EISCONN", 107: "ENOTCONN",
	108: "ESHUTDOWN", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 112: "EHOSTDOWN",
	113: "EHOSTUNREACH", 114: "EALREADY", 115: "EINPROGRESS", 125: "ECANCELED",
	64: "ENONET", 70: "ECOMM",
}

// errnoPrefix starts the name of an errno that has none here.
const errnoPrefix = "ERRNO_"

// ErrnoName returns the name of one of Linux' error numbers, such as ECONNRESET,
// or ERRNO_n for one that TCP does not set.
func ErrnoName(errno uint16) string {
	if name, ok := errnoNames[errno]; ok {
		return name
	}
	return errnoPrefix + strconv.Itoa(int(errno))
}

// parseErrno undoes ErrnoName.
func parseErrno(name string) (uint16, bool) {
	if digits, ok := strings.CutPrefix(name, errnoPrefix); ok {
		n, err := strconv.ParseUint(digits, 10, 16)
		return uint16(n), err == nil && n != 0
	}
	for errno, known := range errnoNames {
		if known == name {
			return errno, true
		}
	}
	return 0, false
}
