"""The programs that serve HTTP: Starlette on uvicorn, and the extension of Azure Functions."""
