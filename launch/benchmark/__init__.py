"""Speed measurements: python -m launch.benchmark SUBCOMMAND [--flags]"""
