package transmit

// Spread returns n processors to pin as many senders to, each as different from
// the others as there are processors. [CPUAuto] alone would take the same one for
// all.
func Spread(n int) []CPU { return spread(n) }
