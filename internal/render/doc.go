// Package render owns what people and programs read on stdout: the text table and
// the JSON lines of the stream, and the account of --features.
//
// A stream renderer collects its output; Flush hands it to the writer, once for
// each batch of events. Nothing that a process can choose reaches a terminal
// unescaped.
package render
