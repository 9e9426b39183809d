"""Speed measurements: pnoise benchmark SUBCOMMAND [--flags]"""
