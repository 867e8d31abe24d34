"""leak: what a leak is worth; see --help, and cxr/stages/leak.py."""

from cxr.pipeline.config import LeakConfig, script
from cxr.pipeline.leak_stage import leak_stage


@script("leak")
def main(config: LeakConfig) -> None:
    """Run the stage."""
    leak_stage(config)


if __name__ == "__main__":
    main()
