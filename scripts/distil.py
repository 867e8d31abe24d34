"""distil: see --help, and cxr/pipeline/distil_stage.py."""

from cxr.pipeline.config import DistilConfig, script
from cxr.pipeline.distil_stage import distil_stage


@script("distil")
def main(config: DistilConfig) -> None:
    """Run the stage."""
    distil_stage(config)


if __name__ == "__main__":
    main()
