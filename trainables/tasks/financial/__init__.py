"""Labelled sentences of financial texts: FPB, FOMC, NumClaim."""
