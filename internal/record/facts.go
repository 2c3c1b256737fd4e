package record

// Facts is what a trace learnt beside the records: the last value for each topic
// and key. It is bounded, and forgets everything when it is full. Writer and Reader
// each keep one and do the same to it, so that a replay knows and has forgotten
// what the trace did.
type Facts struct {
	values map[factKey]string
	bytes  int
}

type factKey struct {
	topic string
	key   uint64
}

const (
	maxFacts     = 1 << 16
	maxFactBytes = 16 << 20
)

// Get returns the last value.
func (f *Facts) Get(topic string, key uint64) (value string, ok bool) {
	value, ok = f.values[factKey{topic, key}]
	return value, ok
}

// set reports whether the value is news.
func (f *Facts) set(topic string, key uint64, value string) bool {
	k := factKey{topic, key}
	old, known := f.values[k]
	if known && old == value {
		return false
	}
	if !known {
		f.bytes += len(topic)
	}
	f.bytes += len(value) - len(old)
	if f.values == nil || f.bytes > maxFactBytes || (!known && len(f.values) >= maxFacts) {
		f.values = make(map[factKey]string)
		f.bytes = len(topic) + len(value)
	}
	f.values[k] = value
	return true
}
