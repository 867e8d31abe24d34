"""How far a prediction is to be trusted: conformal sets, referral, out-of-distribution score."""
