// Package archtest owns the rules about who may import and call what. It has no
// code for others: its tests read the sources of the module and fail where a rule
// is broken.
package archtest
