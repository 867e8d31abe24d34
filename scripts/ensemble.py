"""ensemble: see --help, and cxr/stages/ensemble.py."""

from cxr.config import EnsembleConfig, script
from cxr.stages.ensemble import ensemble_stage


@script("ensemble")
def main(config: EnsembleConfig) -> None:
    """Run the stage."""
    ensemble_stage(config)


if __name__ == "__main__":
    main()
