"""CDTrans and its parts."""
