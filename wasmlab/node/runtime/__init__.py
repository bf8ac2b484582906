"""The node's side of the sandbox: runs that outlive the agent, their control groups, their logs, their pipes."""
