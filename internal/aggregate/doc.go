// Package aggregate owns the connection table: it makes transitions and accounts
// of whole connections out of single records.
//
// The kernel shows a TCP connection in pieces. A listener's child changes state
// before it has an address, a connecting socket before it has a port, and
// TIME_WAIT and an orphan's FIN_WAIT2 live in another object under another
// address, of which no transition tells. Table joins the pieces: each connection
// gets one identity, one line for each true change of state, and one account when
// it is really over.
//
// Table is a pure function of the records that it is given. Their times are its
// only clock; the same records give the same output. Where the records do not
// tell, the output says unknown, and Exact says where a value is not to the point.
package aggregate
