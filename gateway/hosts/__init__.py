"""The programs that serve: Starlette under uvicorn, and Azure Functions' extension."""
