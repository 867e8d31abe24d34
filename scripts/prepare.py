"""prepare: see --help, and cxr/pipeline/prepare_stage.py."""

from cxr.pipeline.config import PrepareConfig, script
from cxr.pipeline.prepare_stage import prepare_stage


@script("prepare")
def main(config: PrepareConfig) -> None:
    """Run the stage."""
    prepare_stage(config)


if __name__ == "__main__":
    main()
