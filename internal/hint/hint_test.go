package hint

import (
	"errors"
	"fmt"
	"testing"
)

func TestOf(t *testing.T) {
	inner := New("inner", "turn it on")
	for _, tc := range []struct {
		err        error
		text, hint string
	}{
		{nil, "", ""},
		{errors.New("plain"), "plain", ""},
		{inner, "inner", "turn it on"},
		{fmt.Errorf("outer: %w", inner), "outer: inner", "turn it on"},
		{Wrap(inner, "call someone"), "inner", "call someone"},
		{Wrap(nil, "nothing"), "", ""},
	} {
		if tc.err != nil && tc.err.Error() != tc.text {
			t.Errorf("text %q, want %q", tc.err, tc.text)
		}
		if got := Of(tc.err); got != tc.hint {
			t.Errorf("%v: hint %q, want %q", tc.err, got, tc.hint)
		}
	}
	if !errors.Is(Wrap(inner, "x"), inner) {
		t.Error("the wrapped error is hidden")
	}
}
