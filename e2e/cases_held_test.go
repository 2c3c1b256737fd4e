package e2e

import (
	"iter"
	"sync"
)

// heldCase is 20,000 connections at once, four times 5,000 so that no process
// needs more descriptors than it may have. It does without TIME_WAIT, to be over
// when all are closed. An emulated machine has half of them, so that both ends
// together are 20,000.
func heldCase() Case {
	n := 5000
	if inVM {
		n = 2500
	}
	return Case{Name: "held", Run: held, N: n, Families: []int{4}, Sysctls: map[string]string{"ipv4/tcp_max_tw_buckets": "0"}}
}

// emulatedBuffer: an emulated tracer shares its processor with eight busy processes, and
// gets no time for many seconds.
func emulatedBuffer() []string {
	if inVM {
		return []string{"--buffer", "64M"}
	}
	return nil
}

func held(c *C) {
	if err := c.NS.AckAtOnce(); err != nil {
		c.Fatalf("%v", err)
	}
	quarters := make([]*C, 4)
	cs, ss := make([][]*Side, len(quarters)), make([][]*Side, len(quarters))
	c.parallel(len(quarters), func(i int) {
		q := &C{caseRun: c.caseRun, Fam: []int{4, 6}[i%2], N: c.N, Asks: true}
		quarters[i] = q
		srv, cli := q.OwnProc("srv"), q.OwnProc("cli")
		// Accepted when as many wait as may: an emulated machine that goes from one
		// process to the other for each is busy with that alone.
		l := q.Listen(srv, backlog(4096))
		for n := range chunks(q.N, 2500) {
			dialled := q.Dial(cli, l, n)
			pairs := q.Pair(l, dialled, q.Accept(l, n)())
			cs[i], ss[i] = append(cs[i], clients(pairs)...), append(ss[i], servers(pairs)...)
		}
	})
	// All are there, at the same time. They are shut down by descriptors that
	// stay: the kernel resets orphans when there are very many.
	c.parallel(len(quarters), func(i int) { quarters[i].ShutdownFirst(cs[i], ss[i]) })
	c.parallel(len(quarters), func(i int) {
		quarters[i].secondWithoutBuckets(cs[i], ss[i])
		quarters[i].closeListeners()
	})
}

// chunks yields n in parts of at most size.
func chunks(n, size int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for n > 0 && yield(min(n, size)) {
			n -= size
		}
	}
}

func backlog(n int) option { return func(r *request) { r.N = n } }

// parallel calls f(0) to f(n-1) at the same time.
func (c *C) parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	failures := make([]any, n)
	for i := range n {
		wg.Go(func() {
			defer func() { failures[i] = recover() }()
			f(i)
		})
	}
	wg.Wait()
	for _, r := range failures {
		if r != nil {
			panic(r)
		}
	}
}
