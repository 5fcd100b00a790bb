// The function app, on Flex Consumption.
param token string
param location string
param tags object
param identityId string
param clientId string
param blobEndpoint string
param queueEndpoint string
param deploymentContainer string
param queueName string
param redisUrl string
param openAiEndpoint string
param openAiApiVersion string
param modelDeployment string
param telemetryConnectionString string
param instanceMemoryMB int
param maximumInstanceCount int
param httpConcurrency int
param alwaysReadyHttp int
param alwaysReadyJobs int

// All HTTP functions scale as one group; each queue function on instances of its own.
var readyForHttp = alwaysReadyHttp > 0 ? [
  {
    name: 'http'
    instanceCount: alwaysReadyHttp
  }
] : []
var readyForJobs = alwaysReadyJobs > 0 ? [
  {
    name: 'function:work'
    instanceCount: alwaysReadyJobs
  }
] : []

resource plan 'Microsoft.Web/serverfarms@2025-05-01' = {
  name: 'plan-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true // Linux
  }
}

resource app 'Microsoft.Web/sites@2025-05-01' = {
  name: 'func-${token}'
  location: location
  tags: union(tags, {
    'azd-service-name': 'gateway'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    functionAppConfig: {
      runtime: {
        name: 'python'
        version: '3.13'
      }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${blobEndpoint}${deploymentContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: concat(readyForHttp, readyForJobs)
        triggers: {
          http: {
            // Python's default is 1: every open event stream would hold an instance of its own.
            perInstanceConcurrency: httpConcurrency
          }
        }
      }
      // The default, Recreate, kills what runs at each deployment; this lets it end, up to an hour.
      siteUpdateStrategy: {
        type: 'RollingUpdate'
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      appSettings: [
        // the host's storage, and the jobs' queue
        { name: 'AzureWebJobsStorage__blobServiceUri', value: blobEndpoint }
        { name: 'AzureWebJobsStorage__queueServiceUri', value: queueEndpoint }
        { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
        { name: 'AzureWebJobsStorage__clientId', value: clientId }
        // the host's default page would stand where the product's is
        { name: 'AzureWebJobsDisableHomepage', value: 'true' }
        // which identity the product's own credentials use
        { name: 'AZURE_CLIENT_ID', value: clientId }
        { name: 'GATEWAY_QUEUE', value: 'azure-storage' }
        { name: 'GATEWAY_QUEUE_NAME', value: queueName }
        // read by the host from here, not from the product's default
        { name: 'GATEWAY_SWEEP_SCHEDULE', value: '*/15 * * * * *' }
        { name: 'REDIS_URL', value: redisUrl }
        { name: 'GATEWAY_REDIS_AUTH', value: 'entra' }
        { name: 'AZURE_OPENAI_ENDPOINT', value: openAiEndpoint }
        { name: 'OPENAI_API_VERSION', value: openAiApiVersion }
        { name: 'GATEWAY_MODEL', value: modelDeployment }
        { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: telemetryConnectionString }
        { name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING', value: 'ClientId=${clientId};Authorization=AAD' }
        { name: 'OTEL_SERVICE_NAME', value: 'holdfast' }
      ]
    }
  }
}

// Deployment signs in with Entra. A user name and a password of the app's own would be a second door to its code.
resource scmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

resource ftpPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
