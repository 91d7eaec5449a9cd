"""`peg demo`: a whole round trip, from bitcoin to the sidechain and home, on real processes, checked at every step."""
