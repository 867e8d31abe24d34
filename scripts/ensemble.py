"""ensemble: see --help, and cxr/pipeline/ensemble_stage.py."""

from cxr.pipeline.config import EnsembleConfig, script
from cxr.pipeline.ensemble_stage import ensemble_stage


@script("ensemble")
def main(config: EnsembleConfig) -> None:
    """Run the stage."""
    ensemble_stage(config)


if __name__ == "__main__":
    main()
