"""audit: see --help, and cxr/stages/audit.py."""

from cxr.config import AuditConfig, script
from cxr.stages.audit import audit_stage


@script("audit")
def main(config: AuditConfig) -> None:
    """Run the stage."""
    audit_stage(config)


if __name__ == "__main__":
    main()
