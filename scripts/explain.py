"""explain: see --help, and cxr/stages/explain.py."""

from cxr.config import ExplainConfig, script
from cxr.stages.explain import explain_stage


@script("explain")
def main(config: ExplainConfig) -> None:
    """Run the stage."""
    explain_stage(config)


if __name__ == "__main__":
    main()
