// Package smoke holds the tests of the test VMs themselves: that a guest offers
// what its init promises. They run through vmtest.
package smoke
