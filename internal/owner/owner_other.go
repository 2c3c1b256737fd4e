//go:build !linux

package owner

import "errors"

func bootOffset() (int64, error) { return 0, errors.ErrUnsupported }

func isProcFS(string) bool { return false }
